//! The ports of a development run, all on this machine's loopback address.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, bail};

use super::Arguments;

/// The ports the services will listen on.
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) gateway_ops: u16,
    pub(super) brain: u16,
    pub(super) brain_ops: u16,
}

impl Ports {
    /// Sees that the wanted ports are free, and finds free ones for those given as 0.
    ///
    /// Between this and the start of the services another program may take one; the service says so then.
    pub(super) fn choose(arguments: &Arguments) -> Result<Self> {
        // All are held until all are found, so that no two are the same.
        let gateway = reserve("--port", arguments.port)?;
        let gateway_ops = reserve("--ops-port", arguments.ops_port)?;
        let brain = reserve("--brain-port", arguments.brain_port)?;
        let brain_ops = reserve("--brain-ops-port", arguments.brain_ops_port)?;
        Ok(Self {
            gateway: gateway.local_addr()?.port(),
            gateway_ops: gateway_ops.local_addr()?.port(),
            brain: brain.local_addr()?.port(),
            brain_ops: brain_ops.local_addr()?.port(),
        })
    }
}

fn reserve(flag: &str, port: u16) -> Result<TcpListener> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!("port {port} is in use: choose another with {flag} ({flag} 0 takes any free one)")
        }
        Err(error) => Err(error).context(format!("port {port} cannot be used: choose another with {flag}")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(port: &str) -> Arguments {
        let line = ["x", "--port", port, "--ops-port", "0", "--brain-port", "0", "--brain-ops-port", "0"];
        Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).arguments
    }

    #[test]
    fn zero_finds_four_different_ports() {
        let ports = Ports::choose(&arguments("0")).unwrap();
        let all = HashSet::from([ports.gateway, ports.gateway_ops, ports.brain, ports.brain_ops]);
        assert!(all.len() == 4 && !all.contains(&0));
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let error = Ports::choose(&arguments(&port)).err().unwrap().to_string();
        assert!(error.contains(&format!("port {port} is in use")) && error.contains("--port"), "{error}");
    }
}
