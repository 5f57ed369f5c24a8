//! Which brain is the home of a user. Rendezvous hashing: every process that knows the same brains computes the same
//! home, and a brain that comes or goes moves only its own users.
//!
//! The function is part of the contract between gateways and brains. It must give the same result in every process and
//! every version.

/// The home of `user` among the brains with these names; `None` without brains. The order of the names does not matter.
pub fn home<'a>(user: &str, brains: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    brains.into_iter().max_by_key(|brain| (weight(user, brain), *brain))
}

/// The weight of a brain for a user. The brain with the highest weight is the user's home.
fn weight(user: &str, brain: &str) -> u64 {
    // FNV-1a over both names, then the MurmurHash3 finalizer, which spreads the last bytes over all bits.
    let hash = user
        .bytes()
        .chain([0xff])
        .chain(brain.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_of<'a>(user: &str, brains: &[&'a str]) -> &'a str {
        home(user, brains.iter().copied()).expect("a brain")
    }

    #[test]
    fn users_spread_over_the_brains_and_move_only_when_they_must() {
        let brains = ["a", "b", "c"];
        let users: Vec<String> = (0..3000).map(|n| format!("user-{n}")).collect();
        for brain in brains {
            let share = users.iter().filter(|user| home_of(user, &brains) == brain).count();
            assert!((850..1150).contains(&share), "{brain} has {share}");
        }
        for user in &users {
            let before = home_of(user, &brains);
            if before != "c" {
                assert_eq!(home_of(user, &["a", "b"]), before);
            }
        }
    }

    #[test]
    fn the_home_is_the_same_in_every_process_and_version() {
        let brains = ["brain-a", "brain-b", "brain-c"];
        let homes = ["u1", "u2", "u3", "u4"].map(|user| home_of(user, &brains));
        let reversed = ["u1", "u2", "u3", "u4"].map(|user| home_of(user, &["brain-c", "brain-b", "brain-a"]));
        assert_eq!(homes, reversed);
        assert_eq!(weight("u1", "brain-a"), 0x48a4_4356_2ce3_b36c);
        assert_eq!(home("u1", []), None);
    }
}
