//! How much of what is sent the path loses whatever is done about it.
//!
//! A radio link loses packets at random, a full queue loses those too many. Only the second is a reason to send less. The
//! two are told apart by what happens while the round trip shows that no queue stands.

/// Packets, at least, that a share of lost ones is computed from.
const ENOUGH: f64 = 40.0;
/// Weight of new shares.
const WEIGHT: f64 = 0.25;
/// Share of lost packets that is believed to be random at most. More is taken for congestion.
pub(super) const CEILING: f64 = 0.25;
/// Losses of a whole burst, or of a cut, say nothing of the share in general.
const OUTAGE: f64 = 0.6;
/// Standard deviations of the number of lost packets that are still chance.
const DEVIATIONS: f64 = 4.0;
/// Single packets are lost anywhere.
const FEW: f64 = 1.5;
/// Weight of new deviations, smaller, since a single burst must not hide the next one.
const SPREAD_WEIGHT: f64 = 0.1;

/// The share of packets lost at random, and how much it varies.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Baseline {
    share: f64,
    /// Variance of the number of lost packets, for each packet sent. Losses in bursts vary more than single ones.
    spread: f64,
    known: bool,
    acked: f64,
    lost: f64,
}

impl Baseline {
    pub(super) fn share(self) -> f64 {
        self.share
    }

    /// A round without a queue: packets acknowledged and lost.
    pub(super) fn add(&mut self, acked: f64, lost: f64) {
        if lost > OUTAGE * (acked + lost) {
            return;
        }
        self.acked += acked;
        self.lost += lost;
        let all = self.acked + self.lost;
        if all < ENOUGH {
            return;
        }
        let share = (self.lost / all).min(CEILING);
        if self.known {
            let off = self.lost - self.share * all;
            self.spread += SPREAD_WEIGHT * (off * off / all - self.spread);
            self.share += WEIGHT * (share - self.share);
        } else {
            (self.share, self.spread, self.known) = (share, share, true);
        }
        (self.acked, self.lost) = (0.0, 0.0);
    }

    /// Were there more losses than chance explains?
    pub(super) fn exceeded(self, acked: f64, lost: f64) -> bool {
        let all = acked + lost;
        lost > self.share * all + DEVIATIONS * (self.spread.max(self.share) * all).sqrt() + FEW
    }
}
