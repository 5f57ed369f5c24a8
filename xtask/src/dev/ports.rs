//! The ports of a development run, all on this machine's loopback address.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, bail};

/// The ports from the command line.
#[derive(clap::Args)]
pub(super) struct Wanted {
    /// Port for clients; 0 chooses a free port, here and below
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Port of the gateway's /healthz, /readyz and /metrics
    #[arg(long, default_value_t = 9090)]
    ops_port: u16,
    /// Port of the link between gateway and brain
    #[arg(long, default_value_t = 50051)]
    brain_port: u16,
    /// Port of the brain's /healthz, /readyz and /metrics
    #[arg(long, default_value_t = 9091)]
    brain_ops_port: u16,
}

/// The ports of the services.
pub(super) struct Ports {
    pub(super) gateway: u16,
    pub(super) gateway_ops: u16,
    pub(super) brain: u16,
    pub(super) brain_ops: u16,
}

impl Ports {
    /// Checks that the wanted ports are free, and finds a free port for each 0.
    ///
    /// Another program may take a port before the services start; the service then reports it.
    pub(super) fn choose(wanted: &Wanted) -> Result<Self> {
        // Each listener stays open until all ports are chosen, so that no port is chosen twice.
        let gateway = reserve("--port", wanted.port)?;
        let gateway_ops = reserve("--ops-port", wanted.ops_port)?;
        let brain = reserve("--brain-port", wanted.brain_port)?;
        let brain_ops = reserve("--brain-ops-port", wanted.brain_ops_port)?;
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
            bail!("port {port} is in use: choose another with {flag} ({flag} 0 chooses a free port)")
        }
        Err(error) => Err(error).context(format!("cannot use port {port}: choose another with {flag}")),
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
        wanted: Wanted,
    }

    fn wanted(port: &str) -> Wanted {
        let line = ["x", "--port", port, "--ops-port", "0", "--brain-port", "0", "--brain-ops-port", "0"];
        Line::try_parse_from(line).unwrap_or_else(|error| panic!("{error}")).wanted
    }

    #[test]
    fn zero_finds_four_different_ports() {
        let ports = Ports::choose(&wanted("0")).unwrap();
        let all = HashSet::from([ports.gateway, ports.gateway_ops, ports.brain, ports.brain_ops]);
        assert!(all.len() == 4 && !all.contains(&0));
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().to_string();
        let error = Ports::choose(&wanted(&port)).err().unwrap().to_string();
        assert!(error.contains(&format!("port {port} is in use")) && error.contains("--port"), "{error}");
    }
}
