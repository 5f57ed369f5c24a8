//! Texts that hold the time at which they were written, to measure the delay of a delta. Writer and reader must run on one
//! machine: their wall clocks are compared.

use std::time::Duration;

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

/// The times inside a text, in microseconds since 1970: several where deltas were merged.
pub fn times(text: &str) -> impl Iterator<Item = i128> + '_ {
    text.split(MARK).skip(1).filter_map(|part| part.split(' ').next()?.parse().ok())
}

/// How long ago each of the times inside a text was.
pub fn ages(text: &str) -> impl Iterator<Item = Duration> + '_ {
    let now = micros();
    times(text).map(move |then| Duration::from_micros(u64::try_from(now - then).unwrap_or_default()))
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
