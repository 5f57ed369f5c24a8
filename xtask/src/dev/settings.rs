//! The settings files of a development run, written into the data folder for reading and reuse. Secrets are in separate
//! files of the same folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::folder::Folder;
use super::models::Model;
use super::ports::Ports;

/// The usual ports of development servers for web pages. Pages of these origins may connect.
const PAGE_PORTS: [u16; 4] = [3000, 4173, 5173, 8000];

/// The paths of the two settings files.
pub(super) struct Written {
    pub(super) brain: PathBuf,
    pub(super) gateway: PathBuf,
}

pub(super) fn write(folder: &Folder, ports: &Ports, models: &[Model], origins: &[String]) -> Result<Written> {
    let brain = brain(ports, &folder.database(), &folder.keyring(), models)?;
    let gateway = gateway(ports, &folder.secret_file(), origins)?;
    Ok(Written {
        brain: folder.write_settings("brain.toml", &toml(&brain)?)?,
        gateway: folder.write_settings("gateway.toml", &toml(&gateway)?)?,
    })
}

fn brain(ports: &Ports, database: &Path, keyring: &Path, models: &[Model]) -> Result<Value> {
    let mut settings = json!({
        "brain": { "listen": local(ports.brain) },
        "ops": { "listen": local(ports.brain_ops) },
        "link": { "insecure": true },
        "store": { "kind": "sqlite", "sqlite": { "path": text(database)? } },
        "keys": { "keyring_file": text(keyring)? },
        "log": { "format": "text" },
    });
    if !models.is_empty() {
        settings["models"] = serde_json::to_value(models)?;
    }
    Ok(settings)
}

fn gateway(ports: &Ports, secret: &Path, origins: &[String]) -> Result<Value> {
    let pages = [ports.gateway].into_iter().chain(PAGE_PORTS);
    let allowed: Vec<String> = pages
        .flat_map(|port| [format!("http://localhost:{port}"), format!("http://127.0.0.1:{port}")])
        .chain(origins.iter().cloned())
        .collect();
    Ok(json!({
        "gateway": { "listen": local(ports.gateway) },
        "ops": { "listen": local(ports.gateway_ops) },
        "brain": { "endpoints": [format!("http://{}", local(ports.brain))] },
        "link": { "insecure": true },
        "security": { "allowed_origins": allowed },
        "auth": { "hs256_secret_file": text(secret)? },
        "log": { "format": "text" },
    }))
}

fn toml(settings: &Value) -> Result<String> {
    let text = toml::to_string(settings).context("cannot write the settings as TOML")?;
    Ok(format!("# Written by `cargo xtask dev` at every start.\n\n{text}"))
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8: use another folder with --data DIR", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { gateway: 1, gateway_ops: 2, brain: 3, brain_ops: 4 };

    /// Asserts that `known` has every key of `given`, with the same type.
    fn fits(given: &toml::Table, known: &toml::Table, path: &str) {
        for (key, value) in given {
            let Some(default) = known.get(key) else { panic!("{path}{key} is not in the default settings") };
            assert!(value.same_type(default), "{path}{key} has another type");
            if let (Some(given), Some(known)) = (value.as_table(), default.as_table()) {
                fits(given, known, &format!("{path}{key}."));
            }
        }
    }

    fn defaults(service: &str) -> toml::Table {
        let path = crate::project::root().join(service).join("default.toml");
        toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn only_settings_that_exist_are_written() {
        let brain = brain(&PORTS, Path::new("/data/chatbox.db"), Path::new("/data/keyring"), &[]).unwrap();
        fits(&toml::from_str(&toml(&brain).unwrap()).unwrap(), &defaults("brain"), "");
        let gateway = gateway(&PORTS, Path::new("/data/secret"), &["http://localhost:4000".to_owned()]).unwrap();
        let gateway: toml::Table = toml::from_str(&toml(&gateway).unwrap()).unwrap();
        fits(&gateway, &defaults("gateway"), "");
        let origins = gateway["security"]["allowed_origins"].as_array().unwrap();
        for origin in ["http://localhost:1", "http://127.0.0.1:5173", "http://localhost:4000"] {
            assert!(origins.iter().any(|value| value.as_str() == Some(origin)), "{origin}");
        }
    }
}
