//! Turns: generating the answers to messages. [`worker`] runs a session's turns one after the other: [`claim`] inserts an
//! answer's row, [`run`] generates it with [`journal`] and [`meter`], [`adopt`] takes over a row whose owner is gone. [`stop`]
//! ends a growing answer on any brain. [`sweep`] finds what other brains have left.

mod adopt;
mod claim;
mod grow;
mod journal;
mod lost;
mod meter;
mod naming;
mod prompt;
pub mod regenerate;
mod row;
mod run;
pub mod stop;
pub mod sweep;
#[cfg(test)]
mod tests;
pub mod turns;
pub mod worker;
mod workers;
