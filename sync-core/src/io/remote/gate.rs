//! Before every question of another machine: may it still ask, and when did it last?

use crate::io::mutex::lock;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Says why the other side may not ask any more.
pub type Allowed<'a> = dyn Fn() -> Result<(), String> + Sync + 'a;

/// Lets questions in, one by one.
pub struct Gate<'a> {
    allowed: &'a Allowed<'a>,
    asked: Mutex<Asked>,
}

struct Asked {
    /// Questions whose answers are not complete.
    under_way: usize,
    /// When the last one began or ended.
    last: Instant,
}

/// A question that is being answered.
pub struct Question<'a>(&'a Gate<'a>);

impl<'a> Gate<'a> {
    /// Asks `allowed` before each question.
    #[must_use]
    pub fn new(allowed: &'a Allowed<'a>) -> Gate<'a> {
        Gate { allowed, asked: Mutex::new(Asked { under_way: 0, last: Instant::now() }) }
    }

    /// A question came; the answer is under way as long as the result lives.
    ///
    /// # Errors
    /// The other side may not ask.
    pub fn enter(&'a self) -> Result<Question<'a>, String> {
        (self.allowed)()?;
        let mut asked = lock(&self.asked);
        (asked.under_way, asked.last) = (asked.under_way + 1, Instant::now());
        Ok(Question(self))
    }

    /// For how long nothing was asked and nothing answered.
    #[must_use]
    pub fn idle(&self) -> Duration {
        let asked = lock(&self.asked);
        if asked.under_way > 0 { Duration::ZERO } else { asked.last.elapsed() }
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut asked = lock(&self.0.asked);
        (asked.under_way, asked.last) = (asked.under_way - 1, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn nobody_is_idle_whose_question_is_being_answered_and_nobody_asks_who_may_not() {
        let may = AtomicBool::new(true);
        let allowed = || if may.load(Ordering::Relaxed) { Ok(()) } else { Err("no".to_owned()) };
        let gate = Gate::new(&allowed);
        let (one, two) = (gate.enter().unwrap(), gate.enter().unwrap());
        drop(one);
        assert_eq!(gate.idle(), Duration::ZERO);
        may.store(false, Ordering::Relaxed);
        assert_eq!(gate.enter().err(), Some("no".to_owned()));
        drop(two);
        assert_eq!(lock(&gate.asked).under_way, 0);
    }
}
