//! The scenes: calls that share a beginning. Each has its own client, and closes what it opened.

mod connections;
mod control;
mod datagrams;
mod events;
mod inspection;
mod listening;
mod streams;

use wsk_sys::nt::NTSTATUS;

use crate::client::Client;
use crate::report::Report;

/// Calls that share a beginning.
pub(crate) struct Scene {
    /// The calls in their order, and the rules that each bears on. No more than 32.
    pub(crate) calls: &'static [(&'static str, &'static str)],
    /// Makes the calls. An error is the status of a step that had to succeed.
    pub(crate) run: fn(&mut Report<'_>, &Client) -> Result<(), NTSTATUS>,
}

/// All scenes. Those with a call that may crash a system come last.
pub(crate) const SCENES: [Scene; 19] = [
    Scene {
        calls: &[
            ("socket.two-categories", "SOCK-08"),
            ("socket.no-protocol", "SOCK-11"),
            ("socket.null-client", "SOCK-13"),
        ],
        run: control::sockets,
    },
    Scene {
        calls: &[
            ("bind.second", "BIND-11"),
            ("bind.not-local", "-"),
            ("bind.after-failed", "BIND-10"),
            ("bind.other-family", "-"),
        ],
        run: listening::binds,
    },
    Scene {
        calls: &[
            ("accept.unbound", "LSN-02"),
            ("accept.cancelled", "LSN-30"),
            ("accept.cancelled-while-connecting", "LSN-31"),
        ],
        run: listening::accepts,
    },
    Scene {
        calls: &[
            ("conditional.after-bind", "OPT-06"),
            ("option.after-bind", "OPT-10"),
            ("conditional.null-inspect", "INSP-31"),
            ("conditional.null-abort", "INSP-31"),
            ("conditional.datagram", "OPT-08"),
            ("option.unknown", "OPT-16"),
            ("option.keep-idle", "OPT-17"),
            ("option.no-delay", "OPT-18"),
            ("conditional.stream", "STRM-12"),
        ],
        run: listening::options,
    },
    Scene {
        calls: &[
            ("connect.second", "CONN-08"),
            ("connect.connected", "CONN-09"),
            ("bind.connected", "CONN-09"),
        ],
        run: connections::connects,
    },
    Scene { calls: &[("connect.after-failed", "CONN-04")], run: connections::connect_again },
    Scene {
        calls: &[
            ("send.unconnected", "CONN-13"),
            ("receive.unconnected", "CONN-13"),
            ("disconnect.unconnected", "CONN-13"),
        ],
        run: connections::unconnected,
    },
    Scene {
        calls: &[
            ("receive.waitall-drain", "RCV-10"),
            ("send.empty", "SND-07"),
            ("send.after-disconnect", "SND-16"),
            ("disconnect.second", "DISC-28"),
        ],
        run: connections::transfers,
    },
    Scene { calls: &[("send.both-closed", "SND-17")], run: connections::both_closed },
    Scene { calls: &[("disconnect.abortive-buffer", "DISC-24")], run: connections::abortive },
    Scene {
        calls: &[
            ("event.bytes-accepted", "RCVE-16"),
            ("receive.after-nothing-accepted", "RCVE-08"),
            ("backlog.first", "SND-14"),
        ],
        run: connections::data_events,
    },
    Scene {
        calls: &[
            ("stream.listen-unbound", "STRM-07"),
            ("stream.connect-unbound", "STRM-07"),
            ("stream.accept-before-listen", "STRM-08"),
            ("stream.connect-listening", "STRM-09"),
            ("stream.send-listening", "STRM-09"),
            ("stream.accept-connected", "STRM-09"),
            ("stream.listen-connected", "STRM-09"),
        ],
        run: streams::roles,
    },
    Scene {
        calls: &[
            ("datagram.send-unbound", "DGR-01"),
            ("datagram.receive-unbound", "DGR-01"),
            ("ioctl.remote-unbound", "IOC-04"),
            ("ioctl.sendto-unbound", "IOC-04"),
            ("datagram.no-address", "DGR-04"),
            ("datagram.truncated", "DGR-13"),
            ("datagram.depth", "DGR-32"),
        ],
        run: datagrams::datagrams,
    },
    Scene {
        calls: &[
            ("events.listen-unbound", "EVT-09"),
            ("events.datagram-unbound", "EVT-09"),
            ("events.unconnected", "EVT-09"),
            ("events.null-callback", "EVT-35"),
            ("events.foreign", "EVT-33"),
            ("events.disable-inherited", "EVT-40"),
            ("events.disable-two", "EVT-29"),
            ("events.basic", "EVT-06"),
        ],
        run: events::switches,
    },
    Scene {
        calls: &[
            ("static.second", "EVT-45"),
            ("static.accepted", "EVT-50"),
            ("static.after-socket", "EVT-46"),
        ],
        run: events::statics,
    },
    Scene {
        calls: &[("control.unknown-code", "CTL-11"), ("name.null-process", "NAME-07")],
        run: control::client,
    },
    Scene {
        calls: &[
            ("inspect.unknown", "ICMP-09"),
            ("inspect.pend", "ICMP-11"),
            ("inspect.seven", "ICMP-11"),
            ("inspect.decided", "ICMP-09"),
            ("inspect.unbound", "ICMP-14"),
            ("inspect.aborted", "ICMP-08"),
        ],
        run: inspection::decisions,
    },
    Scene { calls: &[("inspect.early", "ICMP-12")], run: inspection::early },
    Scene {
        calls: &[("ioctl.receive-ex-irp", "IOC-15"), ("ioctl.receive-ex-no-irp", "IOC-15")],
        run: control::receive_ex,
    },
];
