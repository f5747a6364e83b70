//! Idle connections when there is no memory for a timer.

use std::task::{Context, Waker};

use gate_protocol::Limits;
use gate_protocol::policy::{Action, Policy};
use nt_user::{Config, Kernel};

use super::*;

fn policy(idle_timeout: u32) -> Policy {
    let mut policy = Policy::new(Action::Accept);
    policy.set_limits(Limits { idle_timeout, ..Limits::DEFAULT });
    policy
}

/// A connection that may be silent for ever does not end for want of a timer; one that may not does.
#[test]
fn a_timer_that_cannot_be_had_ends_what_has_a_limit_only() {
    let kernel = Kernel::new(Config::default());
    let entered = kernel.enter();
    {
        let rules = Rules::try_new(&policy(Limits::NONE)).expect("memory");
        let (cache, last) = (Cache::try_new(0).expect("memory"), LastActivity::now());
        let mut idle = pin!(wait_until_idle(&rules, &cache, &last));
        let mut poll = || idle.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        kernel.faults().fail_from(1);
        for _ in 0..3 {
            assert_eq!(poll(), Poll::Pending);
        }
        assert!(kernel.faults().injected() >= 3, "a timer is asked for each time");
        kernel.faults().clear();
        rules.replace(&policy(Limits::DEFAULT.idle_timeout)).expect("memory");
        kernel.faults().fail_from(1);
        assert_eq!(poll(), Poll::Ready(Reason::Memory));
        kernel.faults().clear();
    }
    drop(entered);
    let left = kernel.shutdown(Duration::from_secs(20));
    assert!(kernel.violations().is_empty() && left.is_clean(), "{:?}\n{left}", kernel.violations());
}
