//! The connection to another agent. The only place that knows QUIC.

mod controller;

pub use controller::Measuring;
