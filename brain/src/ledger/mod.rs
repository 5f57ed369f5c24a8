//! The ledger: one record per provider call, written once and never changed, whatever happened to the call or to its
//! brain.
//!
//! Before a call, the most it can use is reserved in the account of its user and day. The account holds used and
//! reserved amounts; a reservation that exceeds the allowance is refused, so concurrent calls cannot exceed it
//! together. After the call its record is inserted under the call's id, and the reservation is replaced by the used
//! amounts. The reservation of a dead brain is settled by another brain, from an estimate. The first record of a call
//! id counts.

mod account;
mod call;
mod day;
mod record;

pub use account::{Allowance, DayUsage, UsageSum};
pub use call::{Call, CallFinish, Purpose};
pub use day::Day;
pub use record::{Reservation, UsageRecord};

#[cfg(test)]
mod tests {
    use chatbox_shared::clock::Timestamp;

    use super::*;

    #[test]
    fn a_day_ends_at_midnight_utc() {
        let late = Timestamp(1_795_564_799_999);
        let day = Day::of(late);
        assert_eq!(day.to_string(), "2026-11-24");
        assert_eq!(day.end(), Timestamp(1_795_564_800_000));
        assert_eq!(Day::of(day.end()).to_string(), "2026-11-25");
        assert_eq!(Day::parse("2026-11-24"), Some(day));
        assert_eq!(Day::parse("24.11.2026"), None);
        assert!(Day::of(Timestamp(-1)).to_string().as_str() < "1970");
    }

    #[test]
    fn names_lead_back() {
        for finish in CallFinish::ALL {
            assert_eq!(CallFinish::parse(finish.as_str()), Some(finish));
        }
        for purpose in [Purpose::Answer, Purpose::Name] {
            assert_eq!(Purpose::parse(purpose.as_str()), Some(purpose));
        }
    }
}
