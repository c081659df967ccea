//! Beside a flow that fills the queue: CUBIC of RFC 9438, so that both get the same.
//!
//! A sender that keeps the queue short starves beside one that keeps it full. Where the queue stands although this sender
//! gave way, it competes as the other does.

use super::Micros;

/// Multiplicative decrease and growth of RFC 9438, section 4.
const BETA: f64 = 0.7;
const C: f64 = 0.4;
/// Additive increase that gives as much as Reno has, section 4.3.
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// Growth past the last loss after which nobody else is there, if the queue is short too.
const OUTGROWN: f64 = 1.1;

/// A window that grows and shrinks as CUBIC does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cubic {
    window: f64,
    plateau: f64,
    /// Seconds from a loss until the plateau is reached again.
    k: f64,
    since: Micros,
    friendly: f64,
}

impl Cubic {
    pub(super) fn new(now: Micros, window: f64) -> Cubic {
        Cubic { window, plateau: window, k: 0.0, since: now, friendly: window }
    }

    pub(super) fn window(self) -> f64 {
        self.window
    }

    /// Has it grown past the window of the last loss without another one? Then nobody fills the queue any more.
    pub(super) fn outgrown(self) -> bool {
        self.window > OUTGROWN * self.plateau
    }

    /// `acked` bytes arrived; `rtt` is the round trip now.
    pub(super) fn on_ack(&mut self, now: Micros, acked: f64, rtt: Micros, mtu: f64) {
        self.friendly += ALPHA * mtu * acked / self.window;
        let seconds = (now + rtt).saturating_sub(self.since) as f64 / 1e6;
        let target = self.plateau + C * (seconds - self.k).powi(3) * mtu;
        let target = target.clamp(self.window, 1.5 * self.window);
        self.window += (target - self.window) * (acked / self.window).min(1.0);
        self.window = self.window.max(self.friendly);
    }

    /// Packets were lost in a full queue.
    pub(super) fn on_loss(&mut self, now: Micros, least: f64, mtu: f64) {
        // Fast convergence: who had less than before leaves room for the new one.
        self.plateau = if self.window < self.plateau { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window = (self.window * BETA).max(least);
        self.k = ((self.plateau - self.window).max(0.0) / mtu / C).cbrt();
        self.friendly = self.window;
        self.since = now;
    }
}
