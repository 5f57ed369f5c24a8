//! Certificates of an authority for one test.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::start::Builder;

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Which service a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The brains.
    Brain,
    /// The gateways.
    Gateway,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// No key can be made.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    /// Gives one side of the link a certificate of this authority, and trust in the certificates of `trusted`. The files are
    /// written to `folder`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn certify(&self, builder: Builder, side: Side, trusted: &Self, folder: &Path) -> Result<Builder> {
        let name = if side == Side::Brain { "brain" } else { "gateway" };
        self.certify_as(name, builder, side, trusted, folder)
    }

    /// Like [`Authority::certify`], with this name in the certificate.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn certify_as(
        &self,
        name: &str,
        builder: Builder,
        side: Side,
        trusted: &Self,
        folder: &Path,
    ) -> Result<Builder> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &self.0)?;
        let files = [("ca_file", trusted.0.pem()), ("cert_file", certificate.pem()), ("key_file", key.serialize_pem())];
        files.into_iter().try_fold(builder, |builder, (setting, text)| {
            let path = folder.join(format!("{name}-{setting}.pem"));
            std::fs::write(&path, text)?;
            let (setting, path) = (format!("link.tls.{setting}"), path.display().to_string());
            match side {
                Side::Brain => builder.brain(&setting, path),
                Side::Gateway => builder.gateway(&setting, path),
            }
        })
    }
}
