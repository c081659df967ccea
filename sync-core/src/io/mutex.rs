//! Locks that a panic does not close: where every change under a lock leaves a whole value behind, a thread that panicked is a defect
//! told elsewhere, and no reason to stop the others. And the end of a thread that beats beside such work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

/// Locks, also after a panic under the lock.
pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the mutex held.
pub(super) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What the mutex holds, for whoever has it alone.
pub(super) fn get_mut<T: ?Sized>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a thread that parks between its beats when it is dropped, and so also after a panic of the work beside it.
pub(super) struct EndOf<'a> {
    pub(super) over: &'a AtomicBool,
    pub(super) thread: Thread,
}

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
