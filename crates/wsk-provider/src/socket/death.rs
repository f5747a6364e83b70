//! Sockets the provider can no longer run (contract 5.2, LIFE-14 to LIFE-17).

use std::sync::Arc;

use super::events::run_sentinel;
use super::{Ending, Life, Role, Socket};
use crate::listen;
use crate::request::Completions;

impl Socket {
    /// Marks the socket dead: its waiting requests complete with `STATUS_FILE_FORCED_CLOSED`, and each
    /// enabled event that has a sentinel form is called with it once.
    pub(crate) fn die(socket: &Arc<Self>) {
        let mut completions = Completions::default();
        let mut state = socket.lock();
        if state.life != Life::Live {
            return;
        }
        socket.set_life(&mut state, Life::Dead);
        state.end(Ending::Died, &mut completions);
        let sentinels = state.begin_sentinels(socket);
        let inspects = state.options.conditional && matches!(state.role, Role::Listen(_));
        let inspector = inspects.then(|| state.begin_in_any_state(socket));
        drop(state);
        completions.run(socket.provider());
        for (event, running) in sentinels {
            run_sentinel(socket, event, running);
        }
        if let Some(running) = inspector {
            let shared = Arc::clone(socket);
            socket.provider().defer(Box::new(move |_| {
                if listen::inspect_sentinel(&shared, &running) {
                    shared.lock().death_notified_by.get_or_insert("INSP-08");
                }
                drop(running);
            }));
        }
    }
}
