//! The threads that wait for the host's sockets and tell their owners.
//!
//! One thread at a time has the helm: it polls, and calls the sinks itself, so that what a sink does for a client
//! costs no change of thread. A sink may run a client's callback, and a client may hold a callback open for as long
//! as it likes. Therefore a second thread keeps watch: when one call lasts, it takes the helm, and what waits in the
//! batch with it, and a new thread keeps watch. The thread that was relieved ends when its call returns.
//!
//! ```text
//!   watch ──a call lasts──► helm ──relieved──► ended
//! ```
//!
//! Under load the helm is left to threads that clients lend while they wait; see [`loan`].

mod loan;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use mio::event::{Event, Source};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::loan::Loans;
use super::listener::{Acceptor, Progress};
use super::slots::{SLOT_TOKENS, Slots, Target};
use crate::transport::{Complain, Job, Ready, ReadySink, Spawn};

/// The token of the waker; slots never reach it.
const WAKE: Token = Token(SLOT_TOKENS);
/// Events taken from the host at a time.
const EVENTS: usize = 1024;
/// How often a listener tries again that found the host out of descriptors and heard of none becoming free.
const STARVED_RETRY: Duration = Duration::from_millis(50);
/// How long to wait before the host is polled again after that has failed.
const POLL_RETRY: Duration = Duration::from_millis(50);
/// How long a call may last before the watch takes the helm.
const PATIENCE: Duration = Duration::from_millis(10);
/// How many threads there are at the most, those included whose call lasts: no client waits in so many calls for one more, and on a
/// busy host a call may last because its thread does not run.
const MOST_THREADS: usize = 64;

/// A Windows host reports once, and again only when asked: `mio` asks when it sees a transfer that would block, for which it
/// has to make the transfer. The owner knows sooner, from one that came out short. Unix hosts report by edge.
pub(super) const REARMS: bool = cfg!(windows);

/// How often some are told to look, whatever was reported, each in turn. Wine 8 loses a report now and then, one in some
/// thousand connections, and whoever waits for it would wait for ever.
const LOOK: Duration = Duration::from_millis(250);
/// How many at a time. A look in vain takes Wine's server, which all its processes share, some 50 µs; so this keeps it busy for
/// a twentieth of its time at the most.
const LOOKS: usize = 256;
/// What goes with the helm.
struct Helm {
    poll: Poll,
    events: Events,
    /// Reported by the host, not yet told.
    batch: VecDeque<(Target, Ready)>,
    /// How many events the last poll took, if each was fit for a lent thread.
    lendable: usize,
    /// When some were last told to look.
    looked: Instant,
    /// The slot whose turn it is next.
    look_next: usize,
    /// The last poll has failed, and so it was told.
    failing: bool,
    complain: Option<Complain>,
}

/// The threads, as [`Reactor::stop`] and the watch see them.
#[derive(Debug, Default)]
struct Crew {
    started: bool,
    /// The numbers of the threads at the helm, on watch, or about to be; one that was relieved is not among them.
    aboard: Vec<u64>,
    next: u64,
    /// All that have not ended, also those that were relieved.
    threads: usize,
    /// Who has the helm: the number and the thread.
    helmsman: Option<(u64, ThreadId)>,
    /// The threads that are lent.
    lent: Vec<ThreadId>,
    /// The watch waits for a sign of life, instead of looking from time to time.
    watch_rests: bool,
}

/// The reactor.
pub(super) struct Reactor {
    registry: Registry,
    waker: Waker,
    slots: Mutex<Slots>,
    helm: Mutex<Helm>,
    /// Listeners to look at again though the host reported nothing new.
    again: Mutex<Vec<Arc<Acceptor>>>,
    /// The listener whose streams are being delivered, and the count of that call.
    accepting: Mutex<Option<(u64, Arc<Acceptor>)>>,
    /// Listeners that found no free descriptor.
    starving: Mutex<Vec<Arc<Acceptor>>>,
    starved: AtomicBool,
    /// How many streams there are.
    streams: AtomicUsize,
    /// With so many, listeners take no more.
    most_streams: usize,
    stop: AtomicBool,
    crew: Mutex<Crew>,
    crew_changed: Condvar,
    /// Mirrors [`Crew::watch_rests`] for the thread at the helm.
    watch_rests: AtomicBool,
    /// There was no thread to be had for the watch.
    unwatched: AtomicBool,
    /// Counts the beginnings and ends of calls: odd while one lasts. The watch ends the count of a call it relieves,
    /// so that the thread which made the call finds its own count gone.
    calls: AtomicU64,
    spawn: Mutex<Option<Spawn>>,
    loans: Loans,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("crew", &self.crew).finish_non_exhaustive()
    }
}

/// A place in the reactor; dropping it ends the reports.
pub(super) struct Watch {
    reactor: Arc<Reactor>,
    token: Token,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.token).finish()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The target is dropped outside the lock: with it may go its owner, which may own another watch.
        let target = self.reactor.slots.lock().remove(self.token);
        drop(target);
    }
}

impl Watch {
    /// Reports to `sink` from now on, beginning with the present state of `source`.
    pub(super) fn retarget(&self, source: &mut impl Source, sink: Arc<dyn ReadySink>) -> io::Result<()> {
        let former = self.reactor.slots.lock().replace(self.token, Target::Ready(sink));
        drop(former);
        self.reactor.registry.reregister(source, self.token, Interest::READABLE | Interest::WRITABLE)
    }
}

impl Watch {
    /// Asks for the next report about `source`: that there is data, and with `writable` that there is room.
    pub(super) fn rearm(&self, source: &mut impl Source, writable: bool) -> io::Result<()> {
        let interest = if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.reactor.registry.reregister(source, self.token, interest)
    }
}

/// The place of a stream among those there may be. Declared after the socket it goes with: dropping it tells a starved
/// listener that there is room for another one.
#[derive(Debug)]
pub(super) struct Place(Arc<Reactor>);

impl Place {
    /// A place for one more stream, which is there already.
    pub(super) fn new(reactor: Arc<Reactor>) -> Self {
        reactor.streams.fetch_add(1, Ordering::Relaxed);
        Self(reactor)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        if self.0.starved.load(Ordering::Relaxed) {
            self.0.wake();
        }
    }
}

impl Reactor {
    /// A reactor whose listeners leave connections to the host while there are `streams` of them.
    pub(super) fn new(streams: Option<usize>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKE)?;
        let helm = Helm {
            poll,
            events: Events::with_capacity(EVENTS),
            batch: VecDeque::new(),
            lendable: 0,
            looked: Instant::now(),
            look_next: 0,
            failing: false,
            complain: None,
        };
        Ok(Self {
            registry,
            waker,
            slots: Mutex::default(),
            helm: Mutex::new(helm),
            again: Mutex::default(),
            accepting: Mutex::default(),
            starving: Mutex::default(),
            starved: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            most_streams: streams.unwrap_or(usize::MAX),
            stop: AtomicBool::new(false),
            crew: Mutex::default(),
            crew_changed: Condvar::new(),
            watch_rests: AtomicBool::new(false),
            unwatched: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            spawn: Mutex::new(None),
            loans: Loans::default(),
        })
    }

    pub(super) fn start(self: &Arc<Self>, spawn: &Spawn, complain: Complain) -> io::Result<()> {
        if std::mem::replace(&mut self.crew.lock().started, true) {
            return Err(io::Error::other("the network was started before"));
        }
        *self.spawn.lock() = Some(Arc::clone(spawn));
        self.helm.lock().complain = Some(complain);
        let begun = self
            .embark(spawn, "wsk reactor", Self::steer)
            .and_then(|()| self.embark(spawn, "wsk reactor watch", Self::keep_watch));
        if begun.is_err() {
            // The one at the helm goes if it was to be had, and all is as before.
            self.disembark();
            self.stop.store(false, Ordering::SeqCst);
            self.spawn.lock().take();
            self.crew.lock().started = false;
        }
        begun
    }

    /// Starts a thread that counts as aboard until its job is dropped, run or not.
    fn embark(
        self: &Arc<Self>,
        spawn: &Spawn,
        name: &str,
        body: impl FnOnce(&Arc<Self>, u64) + Send + 'static,
    ) -> io::Result<()> {
        let own = {
            let mut crew = self.crew.lock();
            let own = crew.next;
            crew.next += 1;
            crew.aboard.push(own);
            crew.threads += 1;
            own
        };
        let aboard = Aboard(Arc::clone(self), own);
        let job: Job = Box::new(move || body(&aboard.0, own));
        spawn(name, job)
    }

    /// Has a new thread keep watch, now or when the helm is free next.
    fn set_watch(self: &Arc<Self>) {
        let Some(spawn) = self.spawn.lock().clone() else { return };
        if self.embark(&spawn, "wsk reactor watch", Self::keep_watch).is_err() {
            self.unwatched.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn stop(&self) {
        self.disembark();
        self.spawn.lock().take();
        let complain = self.helm.lock().complain.take();
        drop(complain);
        self.forget();
    }

    /// Forgets whom to tell: they hold the reactor, as it holds them. The last to do so is the thread whose call has stopped
    /// the reactor, or outlasted it.
    fn forget(&self) {
        // Each is dropped without a lock held: with it may go its owner, which may own a watch.
        let slots = std::mem::take(&mut *self.slots.lock());
        drop(slots);
        let batch = std::mem::take(&mut self.helm.lock().batch);
        drop(batch);
        let accepting = self.accepting.lock().take();
        drop(accepting);
        for waiting in [&self.again, &self.starving] {
            let acceptors = std::mem::take(&mut *waiting.lock());
            drop(acceptors);
        }
    }

    /// Has the threads leave, and waits for that.
    fn disembark(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.loans.rouse();
        let mut crew = self.crew.lock();
        self.wake();
        self.crew_changed.notify_all();
        // From inside a call of the thread at the helm only the others can be waited for.
        let own = crew.helmsman.filter(|(_, id)| *id == thread::current().id()).map(|(own, _)| own);
        while crew.aboard.iter().any(|aboard| Some(*aboard) != own) {
            self.crew_changed.wait(&mut crew);
        }
        self.take_leave(&mut crew);
    }

    /// Reports about `source` to `sink` from now on.
    pub(super) fn watch(
        self: &Arc<Self>,
        source: &mut impl Source,
        sink: Arc<dyn ReadySink>,
    ) -> io::Result<Watch> {
        self.register(source, Target::Ready(sink), Interest::READABLE | Interest::WRITABLE)
    }

    /// Lets `acceptor` take the streams that arrive at `source`.
    pub(super) fn watch_listener(
        self: &Arc<Self>,
        source: &mut impl Source,
        acceptor: Arc<Acceptor>,
    ) -> io::Result<Watch> {
        self.register(source, Target::Accept(acceptor), Interest::READABLE)
    }

    fn register(
        self: &Arc<Self>,
        source: &mut impl Source,
        target: Target,
        interest: Interest,
    ) -> io::Result<Watch> {
        let token = self.slots.lock().insert(target);
        let watch = Watch { reactor: Arc::clone(self), token };
        self.registry.register(source, token, interest)?;
        Ok(watch)
    }

    /// Looks at a listener again soon.
    pub(super) fn look_again(&self, acceptor: Arc<Acceptor>) {
        self.again.lock().push(acceptor);
        self.wake();
    }

    /// Whether listeners leave further connections to the host.
    pub(super) fn is_full(&self) -> bool {
        self.streams.load(Ordering::Relaxed) >= self.most_streams
    }

    pub(super) fn wake(&self) {
        // It fails only when the poll is gone, and then nobody waits.
        let _ = self.waker.wake();
    }

    /// Polls and calls until stopped or relieved.
    fn steer(self: &Arc<Self>, own: u64) {
        self.crew.lock().helmsman = Some((own, thread::current().id()));
        loop {
            let mut helm = self.helm.lock();
            if self.stop.load(Ordering::SeqCst) {
                drop(helm);
                return self.forget();
            }
            let Some((target, ready)) = helm.batch.pop_front() else {
                if self.unwatched.swap(false, Ordering::Relaxed) {
                    self.set_watch();
                }
                if self.loans.relieve_after(helm.lendable) {
                    drop(helm);
                    self.rest();
                } else if let Err(error) = self.poll(&mut helm, None) {
                    Self::complain(helm, &error);
                    thread::sleep(POLL_RETRY);
                }
                continue;
            };
            drop(helm);
            let begun = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            // Either the watch sees this count before it rests, or it is seen to rest here.
            if self.watch_rests.load(Ordering::SeqCst) {
                self.rouse_watch();
            }
            self.call(target, ready, begun);
            if self.calls.compare_exchange(begun, begun + 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                if self.stop.load(Ordering::SeqCst) {
                    self.forget();
                }
                return;
            }
        }
    }

    /// Tells that the host's poll has failed, unless that is known.
    fn complain(mut helm: MutexGuard<'_, Helm>, error: &io::Error) {
        if std::mem::replace(&mut helm.failing, true) {
            return;
        }
        let complain = helm.complain.clone();
        drop(helm);
        if let Some(complain) = complain {
            complain(&format!(
                "nothing is heard of any socket, and it is tried again: the poll fails with {error}"
            ));
        }
    }

    fn rouse_watch(&self) {
        let mut crew = self.crew.lock();
        crew.watch_rests = false;
        self.watch_rests.store(false, Ordering::SeqCst);
        self.crew_changed.notify_all();
    }

    /// Fills the batch, and waits for that up to `patience`, which may be without end.
    fn poll(&self, helm: &mut Helm, patience: Option<Duration>) -> io::Result<()> {
        let timeout = if !self.again.lock().is_empty() {
            Some(Duration::ZERO)
        } else if patience.is_some() {
            patience
        } else if self.starved.load(Ordering::Relaxed) {
            Some(STARVED_RETRY)
        } else if REARMS {
            Some(LOOK)
        } else {
            None
        };
        match helm.poll.poll(&mut helm.events, timeout) {
            Ok(()) => helm.failing = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        {
            let mut slots = self.slots.lock();
            let reported = helm.events.iter();
            helm.batch
                .extend(reported.filter_map(|event| Some((slots.target(event.token())?, ready(event)))));
            if REARMS && helm.looked.elapsed() >= LOOK {
                helm.looked = Instant::now();
                let look = Ready { readable: true, writable: true, ..Ready::default() };
                let (targets, next) = slots.some(helm.look_next, LOOKS);
                helm.batch.extend(targets.map(|target| (target, look)));
                helm.look_next = next;
            }
            let fit = helm.batch.iter().all(|(target, _)| target.fits_loan());
            helm.lendable = if fit { helm.batch.len() } else { 0 };
        }
        let retries = self.again.lock().drain(..).map(Target::Accept).collect::<Vec<_>>();
        helm.batch.extend(retries.into_iter().map(|target| (target, Ready::default())));
        if self.starved.swap(false, Ordering::Relaxed) {
            let retries = self.starving.lock().drain(..).map(Target::Accept).collect::<Vec<_>>();
            helm.batch.extend(retries.into_iter().map(|target| (target, Ready::default())));
        }
        Ok(())
    }

    fn call(&self, target: Target, ready: Ready, begun: u64) {
        let acceptor = match target {
            Target::Ready(sink) => return sink.ready(ready),
            Target::Accept(acceptor) => acceptor,
        };
        *self.accepting.lock() = Some((begun, Arc::clone(&acceptor)));
        let progress = acceptor.accept();
        let done = self.accepting.lock().take_if(|(count, _)| *count == begun);
        drop(done);
        match progress {
            Progress::Done => {}
            Progress::More => self.again.lock().push(acceptor),
            Progress::Starved => {
                self.starving.lock().push(acceptor);
                self.starved.store(true, Ordering::Relaxed);
            }
        }
        if self.calls.load(Ordering::SeqCst) != begun {
            // This thread does not poll next, as it usually does: it was relieved, and another one may be polling now.
            self.wake();
        }
    }

    /// Looks out for a call that lasts, and takes the helm then.
    fn keep_watch(self: &Arc<Self>, own: u64) {
        let mut before = self.calls.load(Ordering::SeqCst);
        let mut crew = self.crew.lock();
        loop {
            let stopping = self.stop.load(Ordering::SeqCst);
            // Whoever stops the reactor waits for the thread at the helm, and a call may never end.
            if stopping && self.calls.load(Ordering::SeqCst).is_multiple_of(2) {
                return;
            }
            if crew.watch_rests && !stopping {
                self.crew_changed.wait(&mut crew);
                continue;
            }
            self.crew_changed.wait_for(&mut crew, PATIENCE);
            let now = self.calls.load(Ordering::SeqCst);
            if now == before && now.is_multiple_of(2) && !stopping {
                crew.watch_rests = true;
                self.watch_rests.store(true, Ordering::SeqCst);
                // A call that was begun before the flag could be seen must not go unwatched.
                if self.calls.load(Ordering::SeqCst) != now {
                    crew.watch_rests = false;
                    self.watch_rests.store(false, Ordering::SeqCst);
                }
            } else if now == before
                && !now.is_multiple_of(2)
                && (stopping || crew.threads < MOST_THREADS)
                && self.calls.compare_exchange(now, now + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                break;
            }
            before = now;
        }
        // The thread that is relieved is no longer waited for: it makes no further call.
        if let Some((relieved, _)) = crew.helmsman.take() {
            crew.aboard.retain(|aboard| *aboard != relieved);
        }
        drop(crew);
        // Streams that came in the same go as the one that is held up are still to be taken.
        if let Some((_, acceptor)) = self.accepting.lock().take() {
            self.again.lock().push(acceptor);
        }
        self.set_watch();
        self.steer(own);
    }
}

/// A thread that counts as aboard until this is dropped.
struct Aboard(Arc<Reactor>, u64);

impl Drop for Aboard {
    fn drop(&mut self) {
        let mut crew = self.0.crew.lock();
        crew.aboard.retain(|aboard| *aboard != self.1);
        crew.threads -= 1;
        drop(crew);
        self.0.crew_changed.notify_all();
    }
}

fn ready(event: &Event) -> Ready {
    Ready {
        readable: event.is_readable(),
        writable: event.is_writable(),
        peer_closed: event.is_read_closed(),
        failed: event.is_error(),
        // What closes the way out on Windows, without the owner's doing. Wine has seen the error then, so that a transfer
        // would find the end of the stream.
        reset: cfg!(windows) && event.is_write_closed(),
        lent: false,
    }
}
