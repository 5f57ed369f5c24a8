//! A day of the calendar, UTC.

use std::fmt;

use chatbox_shared::clock::Timestamp;

/// A day of the calendar, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(time::Date);

impl Day {
    /// The day of this time.
    pub fn of(at: Timestamp) -> Self {
        let at = time::OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000));
        Self(at.unwrap_or(time::OffsetDateTime::UNIX_EPOCH).date())
    }

    /// When the next day begins and the quota is renewed.
    pub fn end(self) -> Timestamp {
        let next = self.0.next_day().unwrap_or(self.0);
        Timestamp(next.midnight().assume_utc().unix_timestamp() * 1000)
    }

    /// The day after; `None` at the end of the calendar.
    pub fn next(self) -> Option<Self> {
        self.0.next_day().map(Self)
    }

    /// Parses a day as [`Day`] displays it.
    pub fn parse(text: &str) -> Option<Self> {
        time::Date::parse(text, time::macros::format_description!("[year]-[month]-[day]")).ok().map(Self)
    }
}

/// Such as 2026-11-24, which sorts as the days do.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), u8::from(self.0.month()), self.0.day())
    }
}
