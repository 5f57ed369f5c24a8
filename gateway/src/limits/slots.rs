//! How many sockets may be in the HTTP phase: in all, and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::address::LimitedNetwork;

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlot {
    /// All slots are taken.
    Full,
    /// The address has taken all the slots that one address may have.
    AddressFull,
}

/// The slots of the HTTP phase.
#[derive(Debug)]
pub struct Slots {
    permits: Arc<Semaphore>,
    per_address: usize,
    /// The addresses whose slots are not counted, because a proxy speaks for many clients.
    exempt: Vec<IpNet>,
    /// The slots that each address has taken. An address without a slot has no entry.
    taken: Mutex<HashMap<LimitedNetwork, usize>>,
}

impl Slots {
    /// Slots for `count` sockets, of which one address may take `per_address`.
    pub fn new(count: usize, per_address: usize, exempt: Vec<IpNet>) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        Arc::new(Self { permits, per_address: per_address.max(1), exempt, taken: Mutex::default() })
    }

    /// Takes a slot for a socket from `address`. The slot is free again when it is dropped.
    ///
    /// # Errors
    /// If there is no slot for the address.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Slot, NoSlot> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| NoSlot::Full)?;
        let address = address.to_canonical();
        if self.exempt.iter().any(|network| network.contains(&address)) {
            return Ok(Slot { _permit: permit, counted: None });
        }
        let network = LimitedNetwork::from(address);
        let mut taken = self.taken.lock();
        let of_address = taken.entry(network).or_default();
        if *of_address >= self.per_address {
            return Err(NoSlot::AddressFull);
        }
        *of_address += 1;
        Ok(Slot { _permit: permit, counted: Some((Arc::clone(self), network)) })
    }

    /// Whether all slots are taken.
    pub fn is_full(&self) -> bool {
        self.permits.available_permits() == 0
    }
}

/// The share of one socket.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    counted: Option<(Arc<Slots>, LimitedNetwork)>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some((slots, network)) = self.counted.take() else { return };
        let mut taken = slots.taken.lock();
        if let Some(of_address) = taken.get_mut(&network) {
            *of_address -= 1;
            if *of_address == 0 {
                taken.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_limited_in_all_and_per_address_and_come_back() {
        let slots = Slots::new(4, 2, vec!["10.0.0.0/8".parse().expect("network")]);
        let take = |address: &str| slots.take(address.parse().expect("address"));
        let (first, second) = (take("192.0.2.1").expect("slot"), take("::ffff:192.0.2.1").expect("slot"));
        assert_eq!(take("192.0.2.1").err(), Some(NoSlot::AddressFull));
        let proxied = [take("10.0.0.1").expect("slot"), take("10.0.0.1").expect("slot")];
        assert!(slots.is_full());
        assert_eq!(take("192.0.2.2").err(), Some(NoSlot::Full));
        drop(proxied);
        drop(first);
        let third = take("192.0.2.1").expect("slot");
        drop((second, third));
        assert!(slots.taken.lock().is_empty() && !slots.is_full());
    }
}
