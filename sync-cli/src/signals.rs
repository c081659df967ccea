//! Ctrl-C and TERM: a flag that the run looks at, and an immediate end while a question waits, or when they come twice.

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::exit::Exit;

/// What a signal asked for.
#[derive(Debug)]
pub(crate) struct Interrupt {
    /// The number of the last signal; 0: none came.
    asked: Arc<AtomicUsize>,
    waiting: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over SIGINT and SIGTERM for the rest of the process.
    pub(crate) fn install() -> anyhow::Result<Interrupt> {
        let interrupt = Interrupt { asked: Arc::default(), waiting: Arc::default() };
        for signal in [SIGINT, SIGTERM] {
            let code = Exit::Interrupted as i32;
            flag::register_conditional_shutdown(signal, code, Arc::clone(&interrupt.waiting))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&interrupt.asked), signal as usize))
                // Whoever asks again does not want to wait any more for what was begun; the next run mends it.
                .and_then(|_| flag::register(signal, Arc::clone(&interrupt.waiting)))
                .context("cannot take over Ctrl-C")?;
        }
        Ok(interrupt)
    }

    /// Was the run asked to stop?
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) != 0
    }

    /// Was it TERM that asked, as whoever manages services does?
    pub(crate) fn is_term(&self) -> bool {
        self.asked.load(Ordering::Relaxed) == SIGTERM as usize
    }

    /// Runs `question`, during which a signal ends the process at once: a read from a terminal would not
    /// notice the flag, and nothing was changed yet.
    pub(crate) fn end_at_once_during<T>(&self, question: impl FnOnce() -> T) -> T {
        self.waiting.store(true, Ordering::SeqCst);
        let answer = question();
        self.waiting.store(false, Ordering::SeqCst);
        answer
    }
}
