//! Texts with the time inside, to measure how long a delta travels. Both ends must run on one machine: the wall clock of
//! one is compared with the wall clock of the other.

use time::OffsetDateTime;

const MARK: char = '⏱';

/// A piece of text with the time now.
pub fn now() -> String {
    format!("{MARK}{} ", micros())
}

/// Microseconds since 1970.
pub fn micros() -> i128 {
    OffsetDateTime::now_utc().unix_timestamp_nanos() / 1000
}

/// The times inside a text, in microseconds since 1970. Deltas may have been merged on the way.
pub fn times(text: &str) -> impl Iterator<Item = i128> + '_ {
    text.split(MARK).skip(1).filter_map(|part| part.split(' ').next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_from_merged_texts() {
        let (first, second) = (now(), now());
        let times: Vec<i128> = times(&format!("{first}{second}")).collect();
        assert_eq!(times.len(), 2);
        assert!(times[0] <= times[1] && times[1] <= micros());
    }
}
