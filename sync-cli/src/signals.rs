//! Ctrl-C and TERM: a flag that the run looks at, and an immediate end while a question waits, or when they come twice. For the agent,
//! which waits for them, also HUP.

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::exit::Exit;

/// What a signal wants of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// That it ends.
    End,
    /// That it reads its configuration anew.
    Reload,
}

/// Signals that are waited for.
pub(crate) struct Waiting {
    signals: Signals,
    interrupted: Arc<AtomicBool>,
}

impl Waiting {
    /// Takes over SIGINT, SIGTERM and SIGHUP for the rest of the process. A second one of the first two ends it at once.
    pub(crate) fn install() -> anyhow::Result<Waiting> {
        let twice: Arc<AtomicBool> = Arc::default();
        let interrupted: Arc<AtomicBool> = Arc::default();
        for signal in [SIGINT, SIGTERM] {
            let code = Exit::Interrupted as i32;
            flag::register_conditional_shutdown(signal, code, Arc::clone(&twice))
                .and_then(|_| flag::register(signal, Arc::clone(&twice)))
                .context("cannot take over Ctrl-C")?;
        }
        flag::register(SIGINT, Arc::clone(&interrupted)).context("cannot take over Ctrl-C")?;
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot take over signals")?;
        Ok(Waiting { signals, interrupted })
    }

    /// What ends the wait.
    pub(crate) fn handle(&self) -> Handle {
        self.signals.handle()
    }

    /// Becomes true with Ctrl-C.
    pub(crate) fn interrupted(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupted)
    }

    /// Hands on every signal, until its handle is closed.
    pub(crate) fn wait(mut self, hear: impl Fn(Wanted)) {
        for signal in self.signals.forever() {
            hear(if signal == SIGHUP { Wanted::Reload } else { Wanted::End });
        }
    }
}

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
