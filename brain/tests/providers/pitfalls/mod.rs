//! The known faults of the wire: one test for each row of the tables of the protocols, named after the row, through real
//! sockets and with exact bytes.

mod wire;

mod anthropic;
mod compatible;
mod dify;
mod openai;
mod retry_after;
mod sse;
