//! Threads: the ones a driver creates, the ones a host spawns, the kernel's own.
//!
//! ```text
//!   start ──► running ──body returns──► ended: the object is signaled, the kernel forgets the thread
//!                │
//!                └── a panic crosses the boundary ──► ended or kernel stopped, see `checker::panics`
//! ```

pub(crate) mod current;
mod system;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use parking_lot::Mutex;
use wsk_sys::nt::PASSIVE_LEVEL;

pub use system::*;

use crate::checker::violation::Violation;
use crate::dispatcher::{Header, Kind};
use crate::event_count::EventCount;
use crate::irql;
use crate::kernel::{Inner, Kernel};

/// The owner of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The driver's, by `PsCreateSystemThread`.
    Driver,
    /// The host's, by [`Kernel::spawn`].
    Host,
    /// The kernel's own: deferred calls, timers, work items.
    Kernel,
}

/// A thread object. It begins with a dispatcher header, so that it can be waited for.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct ThreadObject {
    header: Header,
    name: String,
    owner: Owner,
    ended: AtomicBool,
    /// A wait for the object has succeeded: the driver knows that the thread has left its image.
    seen: AtomicBool,
    status: AtomicI32,
}

impl ThreadObject {
    fn new(name: String, owner: Owner) -> Arc<Self> {
        Arc::new(Self {
            header: Header::new(Kind::Thread, false),
            name,
            owner,
            ended: AtomicBool::new(false),
            seen: AtomicBool::new(false),
            status: AtomicI32::new(0),
        })
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// Objects that drivers hold by handle or by reference.
#[derive(Debug, Default)]
struct Table {
    handles: BTreeMap<usize, Arc<ThreadObject>>,
    /// By address, with the number of references taken.
    referenced: BTreeMap<usize, (Arc<ThreadObject>, isize)>,
    last_handle: usize,
}

impl Table {
    /// Returns true if the driver can still wait for a thread.
    fn holds(&self, thread: &ThreadObject) -> bool {
        self.referenced.contains_key(&thread.address())
            || self.handles.values().any(|held| held.address() == thread.address())
    }
}

/// The threads of a kernel.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    live: Mutex<Vec<Arc<ThreadObject>>>,
    table: Mutex<Table>,
    created: AtomicUsize,
    /// Notified when a thread has ended and when the kernel has stopped.
    changed: EventCount,
}

impl Threads {
    pub(crate) fn changed(&self) -> &EventCount {
        &self.changed
    }

    /// The names of the threads that run now.
    pub(crate) fn names(&self, of: impl Fn(Owner) -> bool) -> Vec<String> {
        self.live.lock().iter().filter(|thread| of(thread.owner)).map(|thread| thread.name.clone()).collect()
    }

    /// The name of the thread whose object is at `address`, as long as it runs.
    pub(crate) fn name(&self, address: usize) -> Option<String> {
        let live = self.live.lock();
        live.iter().find(|thread| thread.address() == address).map(|thread| thread.name.clone())
    }

    /// Takes another reference on a thread object that has one; `None` if there is none.
    pub(crate) fn reference(&self, address: usize) -> Option<isize> {
        let mut table = self.table.lock();
        let (_, count) = table.referenced.get_mut(&address)?;
        *count += 1;
        Some(*count)
    }

    /// Records that a wait for the thread object at `address` has succeeded.
    pub(crate) fn seen(&self, address: usize) {
        if let Some((thread, _)) = self.table.lock().referenced.get(&address) {
            thread.seen.store(true, Ordering::Relaxed);
        }
    }

    /// Open handles and references on thread objects.
    pub(crate) fn held(&self) -> (usize, usize) {
        let table = self.table.lock();
        let references = table.referenced.values().map(|(_, count)| count.unsigned_abs()).sum();
        (table.handles.len(), references)
    }
}

impl Inner {
    /// Starts a thread of this kernel. A `kernel` that is given lives as long as the thread.
    pub(crate) fn start_thread(
        &self,
        kernel: Option<Kernel>,
        thread: Arc<ThreadObject>,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let inner = self.arc();
        let name = thread.name.clone();
        let address = thread.address();
        self.threads.live.lock().push(Arc::clone(&thread));
        let started = self.platform().spawn(
            &name,
            Box::new(move || {
                let bound = current::bind(Arc::clone(&inner), Some(Arc::clone(&thread)));
                if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
                    let text = crate::checker::panic_message(&*payload);
                    inner.violation("LIFE-18", &thread.name, format!("the thread panicked: `{text}`"));
                }
                irql::check_return(&thread.name, PASSIVE_LEVEL, 0);
                drop(bound);
                inner.thread_ended(&thread);
                drop(kernel);
            }),
        );
        if started.is_err() {
            self.threads.live.lock().retain(|thread| thread.address() != address);
        }
        started
    }

    /// Starts a service thread of the kernel.
    pub(crate) fn start_service(
        &self,
        name: String,
        body: impl FnOnce(&Inner) + Send + 'static,
    ) -> io::Result<()> {
        let inner = self.arc();
        self.start_thread(None, ThreadObject::new(name, Owner::Kernel), move || body(&inner))
    }

    /// Signals the object of a thread that has ended.
    pub(crate) fn thread_ended(&self, thread: &ThreadObject) {
        thread.ended.store(true, Ordering::Release);
        thread.header.object().signal(self);
        self.threads.live.lock().retain(|live| live.address() != thread.address());
        self.threads.changed.notify(self.platform());
    }

    /// Checks REG-27: a driver that gives up its last handle or reference on a thread without waiting for it
    /// cannot know when the thread has left its image. A stopped kernel is exempt.
    fn check_seen(&self, thread: &ThreadObject, call: &'static str) {
        if !thread.seen.load(Ordering::Relaxed) && self.stopped().is_none() {
            let detail = format!(
                "the driver did not wait for its thread `{}` and now cannot: it will not know when the \
                 thread has left its image (unload or stop the owner of a thread; do not only drop it)",
                thread.name
            );
            self.violation("REG-27", call, detail);
        }
    }

    fn next_thread_name(&self, stem: &str) -> String {
        format!("{stem}-{}", self.threads.created.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// The reason why a [`Joiner`] has no result.
pub enum Failure {
    /// The closure panicked with this payload.
    Panicked(Box<dyn Any + Send>),
    /// The kernel has stopped, because of current violation.
    Stopped(Box<Violation>),
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(payload) => {
                f.debug_tuple("Panicked").field(&crate::checker::panic_message(&**payload)).finish()
            }
            Self::Stopped(violation) => f.debug_tuple("Stopped").field(violation).finish(),
        }
    }
}

/// The result that a thread of [`Kernel::spawn`] leaves for its joiner.
struct Outcome<T> {
    kernel: Arc<Inner>,
    result: Mutex<Option<std::thread::Result<T>>>,
}

impl<T> Drop for Outcome<T> {
    fn drop(&mut self) {
        if let Some(Err(payload)) = self.result.get_mut() {
            let text = crate::checker::panic_message(&**payload);
            let detail = format!("a thread that was not joined panicked: `{text}`");
            self.kernel.violation("LIFE-18", "Kernel::spawn", detail);
        }
    }
}

/// The right to wait for a thread of [`Kernel::spawn`] and to take its result.
pub struct Joiner<T> {
    thread: Arc<ThreadObject>,
    outcome: Arc<Outcome<T>>,
}

impl<T> fmt::Debug for Joiner<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joiner").field("thread", &self.thread.name).finish_non_exhaustive()
    }
}

impl<T> Joiner<T> {
    /// Waits until the thread has ended or its kernel has stopped. Call this on a host thread.
    pub fn join(self) -> Result<T, Failure> {
        let Self { thread, outcome } = self;
        let kernel = &outcome.kernel;
        kernel.threads.changed.wait_until(kernel.platform(), None, || {
            thread.ended.load(Ordering::Acquire) || kernel.stopped().is_some()
        });
        let result = outcome.result.lock().take();
        if let Some(violation) = kernel.stopped() {
            // A result from a stopped kernel is not reliable, even if there is one.
            return Err(Failure::Stopped(Box::new(violation.clone())));
        }
        match result {
            Some(Ok(value)) => Ok(value),
            Some(Err(payload)) => Err(Failure::Panicked(payload)),
            None => unreachable!("a thread of a running kernel stores its result before it ends"),
        }
    }

    /// Returns true if the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.ended.load(Ordering::Acquire)
    }
}

impl Kernel {
    /// Runs a closure on a new thread of this kernel, at PASSIVE_LEVEL.
    ///
    /// A panic of the closure is passed to the joiner; without a join it is a violation of LIFE-18.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Joiner<T>> {
        let thread = ThreadObject::new(name.to_owned(), Owner::Host);
        let outcome = Arc::new(Outcome { kernel: Arc::clone(self.inner()), result: Mutex::new(None) });
        let joiner = Joiner { thread: Arc::clone(&thread), outcome: Arc::clone(&outcome) };
        self.inner().start_thread(Some(self.clone()), thread, move || {
            let result = catch_unwind(AssertUnwindSafe(body));
            *outcome.result.lock() = Some(result);
        })?;
        Ok(joiner)
    }

    /// The names of the threads that drivers and hosts have started and that have not ended.
    pub fn threads(&self) -> Vec<String> {
        self.inner().threads.names(|owner| owner != Owner::Kernel)
    }
}
