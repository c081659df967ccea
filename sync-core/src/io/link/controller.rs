//! [`Congestion`] behind quinn's interface. Translates clocks and callbacks, decides nothing.
//!
//! quinn 0.11 asks for a window and nothing else: its pacer sends 1.25 windows per smoothed round trip, in bursts of about two
//! milliseconds and at least ten packets, and the pacing rate among the metrics only reaches traces.

use crate::congestion::{Congestion, Micros};
use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::RttEstimator;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Makes a controller for every new path; for `TransportConfig::congestion_controller_factory`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Measuring;

impl ControllerFactory for Measuring {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Path { start: now, congestion: Congestion::new(current_mtu) })
    }
}

/// A path and the moment from which its times count.
#[derive(Debug, Clone)]
struct Path {
    start: Instant,
    congestion: Congestion,
}

impl Path {
    fn time(&self, instant: Instant) -> Micros {
        Micros::try_from(instant.saturating_duration_since(self.start).as_micros()).unwrap_or(Micros::MAX)
    }
}

impl Controller for Path {
    fn on_sent(&mut self, now: Instant, bytes: u64, _last_packet_number: u64) {
        self.congestion.on_sent(self.time(now), bytes);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _app_limited: bool, _rtt: &RttEstimator) {
        self.congestion.on_ack(self.time(now), self.time(sent), bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _largest_packet_num_acked: Option<u64>) {
        self.congestion.on_batch(self.time(now), in_flight, app_limited);
    }

    fn on_congestion_event(&mut self, _now: Instant, _sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.congestion.on_loss(lost_bytes, is_persistent_congestion);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.congestion.on_mtu(new_mtu);
    }

    fn window(&self) -> u64 {
        self.congestion.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = ControllerMetrics::default();
        metrics.congestion_window = self.congestion.window();
        metrics.pacing_rate = Some(self.congestion.rate().saturating_mul(8));
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.congestion.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
