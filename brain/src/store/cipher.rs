//! Encryption of contents and names: AES-256-GCM with one data key per session, which a master key of the [`Keyring`]
//! wraps. A ciphertext is bound to its location (collection, session, seq, field) and opens nowhere else. Owns the
//! layout of the blobs; knows no store.
//!
//! Every blob is nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes). Nonces are random: one data key encrypts the entries
//! of one session, one master key the data keys. Both stay far below the 2^32 messages at which random nonces become
//! risky.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use chatbox_shared::ids::{Seq, SessionId};
use zeroize::Zeroize;

use super::WrappedKey;
use super::keyring::{KEY_BYTES, Keyring};

/// Why a blob cannot be decrypted or encrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CipherError {
    /// The keyring lacks the master key that wraps the session's data key.
    #[error("session {session}: the master key {kid:?} of its data key is not in the keyring")]
    UnknownKey {
        /// The session concerned.
        session: SessionId,
        /// The id of the missing key.
        kid: String,
    },
    /// The data key cannot be unwrapped with the master key of that id.
    #[error(
        "session {session}: its data key cannot be decrypted with the master key {kid:?}: another key of that id, or changed data"
    )]
    WrongKey {
        /// The session concerned.
        session: SessionId,
        /// The id of the master key.
        kid: String,
    },
    /// A name or content cannot be decrypted: another key, a changed byte, or a ciphertext moved from elsewhere.
    #[error(
        "session {session}: the field {field} at seq {seq} cannot be decrypted: changed, moved, or encrypted with another key"
    )]
    Damaged {
        /// The session concerned.
        session: SessionId,
        /// The entry, 0 for the session itself.
        seq: Seq,
        /// The stored field.
        field: &'static str,
    },
    /// The system provides no randomness.
    #[error("session {session}: cannot encrypt")]
    CannotSeal {
        /// The session concerned.
        session: SessionId,
    },
}

/// The location a ciphertext is bound to.
#[derive(Clone, Copy)]
struct Location {
    collection: &'static str,
    session: SessionId,
    seq: Seq,
    field: &'static str,
}

impl Location {
    fn data_key(session: SessionId) -> Self {
        Self { collection: "sessions", session, seq: 0, field: "dk" }
    }

    fn name(session: SessionId) -> Self {
        Self { collection: "sessions", session, seq: 0, field: "nm" }
    }

    fn content(session: SessionId, seq: Seq) -> Self {
        Self { collection: "messages", session, seq, field: "ct" }
    }

    /// The additional authenticated data, unique per location: a version, then each part with a fixed length or after
    /// its length.
    fn aad(&self) -> Vec<u8> {
        let mut aad = Vec::with_capacity(64);
        aad.extend_from_slice(b"chatbox.v1");
        for text in [self.collection, self.field] {
            aad.extend_from_slice(&(text.len() as u64).to_be_bytes());
            aad.extend_from_slice(text.as_bytes());
        }
        aad.extend_from_slice(self.session.0.as_bytes());
        aad.extend_from_slice(&self.seq.to_be_bytes());
        aad
    }

    fn damaged(&self) -> CipherError {
        CipherError::Damaged { session: self.session, seq: self.seq, field: self.field }
    }

    fn cannot_seal(&self) -> CipherError {
        CipherError::CannotSeal { session: self.session }
    }
}

/// A session's data key. Wiped when dropped.
pub struct SessionKey {
    bytes: [u8; KEY_BYTES],
}

impl SessionKey {
    /// A new random key for `session`.
    ///
    /// # Errors
    /// [`CipherError::CannotSeal`] where the system provides no randomness.
    pub fn generate(session: SessionId) -> Result<Self, CipherError> {
        let mut key = Self { bytes: [0; KEY_BYTES] };
        rand::fill(&mut key.bytes).map_err(|_| CipherError::CannotSeal { session })?;
        Ok(key)
    }

    /// Encrypts the content of the entry at `seq`.
    ///
    /// # Errors
    /// [`CipherError::CannotSeal`].
    pub fn seal_content(&self, session: SessionId, seq: Seq, text: &str) -> Result<Vec<u8>, CipherError> {
        seal(&self.bytes, &Location::content(session, seq), text.as_bytes())
    }

    /// Decrypts the content of the entry at `seq`. An empty blob is damaged: an entry without content is not decrypted.
    ///
    /// # Errors
    /// [`CipherError::Damaged`].
    pub fn open_content(&self, session: SessionId, seq: Seq, blob: &[u8]) -> Result<String, CipherError> {
        self.open_text(&Location::content(session, seq), blob)
    }

    /// Encrypts the session's name.
    ///
    /// # Errors
    /// [`CipherError::CannotSeal`].
    pub fn seal_name(&self, session: SessionId, name: &str) -> Result<Vec<u8>, CipherError> {
        seal(&self.bytes, &Location::name(session), name.as_bytes())
    }

    /// Decrypts the session's name. An empty blob is damaged: a session without a name is not decrypted.
    ///
    /// # Errors
    /// [`CipherError::Damaged`].
    pub fn open_name(&self, session: SessionId, blob: &[u8]) -> Result<String, CipherError> {
        self.open_text(&Location::name(session), blob)
    }

    fn open_text(&self, location: &Location, blob: &[u8]) -> Result<String, CipherError> {
        let plain = open(&self.bytes, location, blob).ok_or_else(|| location.damaged())?;
        String::from_utf8(plain).map_err(|_| location.damaged())
    }
}

impl Drop for SessionKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// Hides the key.
impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

impl Keyring {
    /// Wraps a data key for its session, under the active master key.
    ///
    /// # Errors
    /// [`CipherError::CannotSeal`].
    pub fn wrap(&self, key: &SessionKey, session: SessionId) -> Result<WrappedKey, CipherError> {
        let master = self.active();
        let wrapped = seal(&master.bytes, &Location::data_key(session), &key.bytes)?;
        Ok(WrappedKey { kid: master.kid.clone(), wrapped })
    }

    /// Unwraps a session's data key.
    ///
    /// # Errors
    /// [`CipherError::UnknownKey`], [`CipherError::WrongKey`].
    pub fn unwrap(&self, wrapped: &WrappedKey, session: SessionId) -> Result<SessionKey, CipherError> {
        let kid = || wrapped.kid.clone();
        let master = self.key(&wrapped.kid).ok_or_else(|| CipherError::UnknownKey { session, kid: kid() })?;
        let mut plain = open(&master.bytes, &Location::data_key(session), &wrapped.wrapped)
            .ok_or_else(|| CipherError::WrongKey { session, kid: kid() })?;
        let mut key = SessionKey { bytes: [0; KEY_BYTES] };
        let fits = plain.len() == KEY_BYTES;
        if fits {
            key.bytes.copy_from_slice(&plain);
        }
        plain.zeroize();
        if fits { Ok(key) } else { Err(CipherError::WrongKey { session, kid: kid() }) }
    }
}

fn seal(key: &[u8; KEY_BYTES], location: &Location, plain: &[u8]) -> Result<Vec<u8>, CipherError> {
    let mut nonce = [0; NONCE_LEN];
    rand::fill(&mut nonce).map_err(|_| location.cannot_seal())?;
    // The full capacity at once: growing would leave clear text behind in the old buffer.
    let mut blob = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
    blob.extend_from_slice(&nonce);
    blob.extend_from_slice(plain);
    let tag = aead(key)
        .and_then(|aead| {
            let aad = Aad::from(location.aad());
            aead.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut blob[NONCE_LEN..]).ok()
        })
        .ok_or_else(|| location.cannot_seal())?;
    blob.extend_from_slice(tag.as_ref());
    Ok(blob)
}

fn open(key: &[u8; KEY_BYTES], location: &Location, blob: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = blob.split_first_chunk::<NONCE_LEN>()?;
    let mut plain = sealed.to_vec();
    let aad = Aad::from(location.aad());
    let length = aead(key)?.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut plain).ok()?.len();
    plain.truncate(length);
    Some(plain)
}

fn aead(key: &[u8; KEY_BYTES]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keyring(kids: &[&str]) -> Keyring {
        let lines: Vec<_> = kids.iter().map(|kid| Keyring::generate_line(kid).unwrap().to_string()).collect();
        Keyring::parse(&lines.join("\n"), None).unwrap()
    }

    fn flipped(blob: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..blob.len() * 8).map(|bit| {
            let mut copy = blob.to_vec();
            copy[bit / 8] ^= 1 << (bit % 8);
            copy
        })
    }

    #[test]
    fn a_wrapped_key_opens_for_its_session_only() {
        let ring = keyring(&["a", "b"]);
        let (session, other) = (SessionId::generate(), SessionId::generate());
        let key = SessionKey::generate(session).unwrap();
        let wrapped = ring.wrap(&key, session).unwrap();
        assert_eq!(wrapped.kid, "a");
        assert_eq!(ring.unwrap(&wrapped, session).unwrap().bytes, key.bytes);
        let moved = ring.unwrap(&wrapped, other).unwrap_err();
        assert_eq!(moved, CipherError::WrongKey { session: other, kid: "a".into() });
        for wrapped in flipped(&wrapped.wrapped) {
            assert!(ring.unwrap(&WrappedKey { kid: "a".into(), wrapped }, session).is_err());
        }
    }

    #[test]
    fn a_wrong_or_missing_master_key_is_a_clear_error() {
        let (ring, session) = (keyring(&["a", "b"]), SessionId::generate());
        let wrapped = ring.wrap(&SessionKey::generate(session).unwrap(), session).unwrap();
        let renamed = WrappedKey { kid: "b".into(), ..wrapped.clone() };
        assert_eq!(ring.unwrap(&renamed, session).unwrap_err(), CipherError::WrongKey { session, kid: "b".into() });
        let same_name = keyring(&["a"]);
        assert_eq!(
            same_name.unwrap(&wrapped, session).unwrap_err(),
            CipherError::WrongKey { session, kid: "a".into() }
        );
        let error = keyring(&["c"]).unwrap(&wrapped, session).unwrap_err();
        assert_eq!(error, CipherError::UnknownKey { session, kid: "a".into() });
        assert!(error.to_string().contains(&session.to_string()) && error.to_string().contains("\"a\""), "{error}");
    }

    #[test]
    fn a_ciphertext_opens_at_its_own_place_only() {
        let (session, other) = (SessionId::generate(), SessionId::generate());
        let key = SessionKey::generate(session).unwrap();
        let content = key.seal_content(session, 3, "hello").unwrap();
        let damaged = |session, seq, field| CipherError::Damaged { session, seq, field };
        assert_eq!(key.open_content(session, 3, &content).unwrap(), "hello");
        assert_eq!(key.open_content(session, 4, &content).unwrap_err(), damaged(session, 4, "ct"));
        assert_eq!(key.open_content(other, 3, &content).unwrap_err(), damaged(other, 3, "ct"));
        assert_eq!(key.open_name(session, &content).unwrap_err(), damaged(session, 0, "nm"));
        let name = key.seal_name(session, "hello").unwrap();
        assert_eq!(key.open_name(session, &name).unwrap(), "hello");
        assert_eq!(key.open_content(session, 0, &name).unwrap_err(), damaged(session, 0, "ct"));
        let stranger = SessionKey::generate(session).unwrap();
        assert!(stranger.open_content(session, 3, &content).is_err());
    }

    #[test]
    fn the_same_text_never_looks_the_same() {
        let session = SessionId::generate();
        let key = SessionKey::generate(session).unwrap();
        let blobs: std::collections::HashSet<_> = (0..100).map(|_| key.seal_content(session, 1, "").unwrap()).collect();
        assert_eq!(blobs.len(), 100);
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = SessionKey::generate(SessionId::generate()).unwrap();
        assert_eq!(format!("{key:?}"), "SessionKey(..)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn text_comes_back_and_every_changed_bit_is_seen(text in "\\PC{0,40}", seq in any::<u64>()) {
            let session = SessionId::generate();
            let key = SessionKey::generate(session).unwrap();
            let blob = key.seal_content(session, seq, &text).unwrap();
            prop_assert_eq!(blob.len(), text.len() + 28);
            prop_assert_eq!(key.open_content(session, seq, &blob).unwrap(), text);
            for changed in flipped(&blob) {
                prop_assert!(key.open_content(session, seq, &changed).is_err());
            }
            for length in 0..blob.len() {
                prop_assert!(key.open_content(session, seq, &blob[..length]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_refused_without_panic(blob in proptest::collection::vec(any::<u8>(), 0..100)) {
            let session = SessionId::generate();
            let key = SessionKey::generate(session).unwrap();
            prop_assert!(key.open_content(session, 1, &blob).is_err());
        }
    }
}
