//! Behaviors that the contract leaves open (rules of evidence class U, and gaps of other rules): one enum for
//! each.
//!
//! The first alternative of each is the default the rule names, and a client has to be right under all of
//! them; [`Alternatives::ALL`] is there so that a test can go through them.

use std::fmt::Debug;

use wsk_sys::nt::NTSTATUS;
use wsk_sys::status::*;

/// A behavior that the contract leaves open.
pub trait Alternatives: Copy + Debug + Default + PartialEq + Sized + 'static {
    /// The rule that leaves it open.
    const RULE: &'static str;
    /// Every alternative, the default first.
    const ALL: &'static [Self];
}

macro_rules! behaviours {
    (
        statuses {
            $(
                $(#[$sdoc:meta])* $srule:literal $sfield:ident: $sname:ident =
                    $first:ident | $($other:ident)|+;
            )*
        }
        choices {
            $($(#[$cdoc:meta])* $crule:literal $cfield:ident: $cname:ident {
                $($(#[$vdoc:meta])* $variant:ident),+ $(,)?
            })*
        }
    ) => {
        $(
            $(#[$sdoc])*
            #[doc = concat!("\n\n", $srule, ".")]
            #[allow(non_camel_case_types)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub enum $sname {
                #[doc = concat!("`", stringify!($first), "`")]
                #[default]
                $first,
                $(#[doc = concat!("`", stringify!($other), "`")] $other),+
            }
            impl $sname {
                /// Returns the status of this alternative.
                pub const fn status(self) -> NTSTATUS {
                    match self { Self::$first => $first, $(Self::$other => $other),+ }
                }
            }
            impl Alternatives for $sname {
                const RULE: &'static str = $srule;
                const ALL: &'static [Self] = &[Self::$first, $(Self::$other),+];
            }
        )*
        behaviours! { @choices $($(#[$cdoc])* $crule $cname { $($(#[$vdoc])* $variant),+ })* }

        /// One selection for every rule that leaves a choice.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Behaviours {
            $($(#[$sdoc])* #[doc = concat!("\n\n", $srule, ".")] pub $sfield: $sname,)*
            $($(#[$cdoc])* #[doc = concat!("\n\n", $crule, ".")] pub $cfield: $cname,)*
        }
    };
    (@choices $($(#[$cdoc:meta])* $crule:literal $cname:ident {
        $(#[$fdoc:meta])* $first:ident, $($(#[$vdoc:meta])* $variant:ident),+
    })*) => { $(
        $(#[$cdoc])*
        #[doc = concat!("\n\n", $crule, ".")]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub enum $cname {
            $(#[$fdoc])*
            #[default]
            $first,
            $($(#[$vdoc])* $variant),+
        }
        impl Alternatives for $cname {
            const RULE: &'static str = $crule;
            const ALL: &'static [Self] = &[Self::$first, $(Self::$variant),+];
        }
    )* };
}

behaviours! {
    statuses {
        /// `WskSocket` with a type and a protocol that do not go together.
        "SOCK-11" no_such_pair: NoSuchPair = STATUS_PROTOCOL_NOT_SUPPORTED | STATUS_PROTOCOL_UNREACHABLE;
        /// A second `WskBind` on a bound socket.
        "BIND-11" second_bind: SecondBind = STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// `WskAccept` on a listening socket that is not bound.
        "LSN-02" accept_unbound: AcceptUnbound = STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// `WskInspectComplete` for an identifier that is unknown or already decided.
        "ICMP-09" complete_unknown: CompleteUnknown = STATUS_NOT_FOUND | STATUS_SUCCESS;
        /// `WskInspectComplete` with an action other than accept and reject.
        "ICMP-11" complete_action: CompleteAction = STATUS_INVALID_PARAMETER | STATUS_NOT_SUPPORTED;
        /// `WskInspectComplete` on a listening socket that is not bound.
        "ICMP-14" complete_unbound: CompleteUnbound = STATUS_INVALID_DEVICE_STATE | STATUS_NOT_FOUND;
        /// `SO_WSK_EVENT_CALLBACK` on a basic socket without a suitable extension.
        "EVT-06" events_on_basic: EventsOnBasic = STATUS_INVALID_PARAMETER | STATUS_NOT_SUPPORTED;
        /// Events switched before the socket's state allows it.
        "EVT-09" events_too_early: EventsTooEarly = STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// Disabling a listener's inherited connection events.
        "EVT-40" disable_inherited: DisableInherited = STATUS_INVALID_PARAMETER | STATUS_NOT_SUPPORTED;
        /// `SO_CONDITIONAL_ACCEPT` set after the bind.
        "OPT-06" conditional_after_bind: ConditionalAfterBind =
            STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// `SO_CONDITIONAL_ACCEPT` on a transport that cannot do it.
        "OPT-08" conditional_unsupported: ConditionalUnsupported =
            STATUS_NOT_SUPPORTED | STATUS_INVALID_PARAMETER;
        /// An option that must precede the bind, set after it.
        "OPT-10" option_after_bind: OptionAfterBind = STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// An unknown option.
        "OPT-16" unknown_option: UnknownOption = STATUS_INVALID_PARAMETER | STATUS_NOT_SUPPORTED;
        /// WAITALL and DRAIN together.
        "RCV-10" wait_all_and_drain: WaitAllAndDrain = STATUS_INVALID_PARAMETER | STATUS_NOT_SUPPORTED;
        /// A send of no bytes.
        "SND-07" empty_send: EmptySend = STATUS_SUCCESS | STATUS_INVALID_PARAMETER;
        /// A send after the client's own graceful disconnect.
        "SND-16" send_after_disconnect: SendAfterDisconnect =
            STATUS_INVALID_DEVICE_STATE | STATUS_LOCAL_DISCONNECT;
        /// A send on a connection closed in both directions.
        "SND-17" send_fully_closed: SendFullyClosed = STATUS_INVALID_DEVICE_STATE | STATUS_CONNECTION_RESET;
        /// A second graceful disconnect.
        "DISC-28" second_disconnect: SecondDisconnect = STATUS_INVALID_DEVICE_STATE | STATUS_SUCCESS;
        /// A second connect while one is pending.
        "CONN-08" connect_while_connecting: ConnectWhileConnecting =
            STATUS_INVALID_DEVICE_STATE | STATUS_CONNECTION_ACTIVE;
        /// A connect on a connected socket.
        "CONN-09" connect_connected: ConnectConnected =
            STATUS_CONNECTION_ACTIVE | STATUS_INVALID_DEVICE_STATE;
        /// A bind on a connected socket.
        "CONN-09" bind_connected: BindConnected = STATUS_INVALID_DEVICE_STATE | STATUS_CONNECTION_ACTIVE;
        /// Transfers and disconnects on a socket that is not connected.
        "CONN-13" not_connected: NotConnected = STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_CONNECTION;
        /// Datagram transfers on an unbound socket.
        "DGR-01" datagram_unbound: DatagramUnbound = STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// A datagram sent without a destination.
        "DGR-04" no_destination: NoDestination = STATUS_INVALID_PARAMETER | STATUS_INVALID_DEVICE_STATE;
        /// A received datagram that did not fit.
        "DGR-13" truncated: Truncated = STATUS_SUCCESS | STATUS_BUFFER_OVERFLOW;
        /// `WskListen` or `WskConnect` on an unbound stream socket.
        "STRM-07" stream_unbound: StreamUnbound = STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// Calls of the other role on a stream socket that has one.
        "STRM-09" other_role: OtherRole = STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// The two fixed-address IOCTLs on an unbound datagram socket.
        "IOC-04" fixed_address_unbound: FixedAddressUnbound =
            STATUS_INVALID_DEVICE_STATE | STATUS_INVALID_PARAMETER;
        /// An unknown `WskControlClient` code.
        "CTL-11" unknown_code: UnknownCode = STATUS_INVALID_PARAMETER | STATUS_NOT_SUPPORTED;
    }
    choices {
        /// Several category bits in `WskSocket.Flags`.
        "SOCK-08" category_bits: CategoryBits {
            /// The call fails with `STATUS_INVALID_PARAMETER`.
            Refused,
            /// The lowest bit decides.
            LowestWins,
        }
        /// Fate of the IRP given with a null client.
        "SOCK-13" null_client_irp: NullClientIrp {
            /// It is left alone.
            Untouched,
            /// It is completed with `STATUS_INVALID_HANDLE`.
            Completed,
        }
        /// First time at which inherited events may fire.
        "ACPT-15" inherited_events: InheritedEvents {
            /// After `WskAcceptEvent` has returned.
            AfterReturn,
            /// As soon as both outputs were written.
            OnceOutputsWritten,
        }
        /// Conditional accept asked for without both callbacks.
        "INSP-31" missing_inspection: MissingInspection {
            /// The option fails with `STATUS_INVALID_PARAMETER`.
            Refused,
            /// It is reported at the first request, which is rejected.
            ReportedAtRequest,
        }
        /// A retransmitted request under inspection.
        "INSP-34" retransmission: Retransmission {
            /// Nothing happens.
            Ignored,
            /// `WskInspectEvent` is called again with the same identifier.
            InspectedAgain,
        }
        /// The peer ends its side of a pended request, without having sent data. A host distinguishes an end
        /// from a reset, but not a peer that has only finished sending from one that has given up.
        "ABRT-01" pended_end: PendedEnd {
            /// It has given up, and `WskAbortEvent` is called.
            GivesUp,
            /// It still waits for the decision; only a reset gives up.
            Waits,
        }
        /// Reuse of the value of an inspection identifier.
        "INSP-35" id_reuse: IdReuse {
            /// Serial numbers count up, so that a value is not reused before the serial number wraps.
            Counted,
            /// The next request gets it as soon as the old one is delivered, rejected or aborted.
            AtOnce,
        }
        /// Pended requests of a listener that closes.
        "INSP-37" close_with_pended: CloseWithPended {
            /// Either, for each request anew.
            Either,
            /// `WskAbortEvent` is called before the close completes.
            Aborted,
            /// They are dropped silently.
            Silent,
        }
        /// `WskInspectComplete` for an aborted request.
        "ICMP-08" complete_aborted: CompleteAborted {
            /// Either, for each call anew.
            Either,
            /// `STATUS_SUCCESS`
            Success,
            /// `STATUS_NOT_FOUND`
            NotFound,
        }
        /// `WskInspectComplete` before the inspection has returned.
        "ICMP-12" complete_early: CompleteEarly {
            /// Reported; the call fails with `STATUS_INVALID_DEVICE_STATE`.
            Reported,
            /// Kept until the callback has returned.
            Queued,
        }
        /// Several events to disable in one call.
        "EVT-29" disable_several: DisableSeveral {
            /// `STATUS_INVALID_PARAMETER`
            Refused,
            /// All of them are disabled.
            All,
        }
        /// Event bits that the category does not have.
        "EVT-33" foreign_events: ForeignEvents {
            /// `STATUS_INVALID_PARAMETER`
            Refused,
            /// They are ignored.
            Ignored,
        }
        /// Enabling an event whose callback pointer is null.
        "EVT-35" null_callback: NullCallback {
            /// `STATUS_INVALID_PARAMETER`
            Refused,
            /// Reported at the first indication, which is lost.
            ReportedAtIndication,
        }
        /// A second `WSK_SET_STATIC_EVENT_CALLBACKS`.
        "EVT-45" second_static: SecondStatic {
            /// `STATUS_INVALID_DEVICE_STATE`
            Refused,
            /// It replaces the set.
            Replaces,
        }
        /// `WSK_SET_STATIC_EVENT_CALLBACKS` after the first socket.
        "EVT-46" late_static: LateStatic {
            /// `STATUS_INVALID_DEVICE_STATE`
            Refused,
            /// It applies to later sockets.
            LaterSockets,
        }
        /// Static events on sockets from `WskAccept`.
        "EVT-50" static_on_accept: StaticOnAccept {
            /// Off.
            Off,
            /// On.
            On,
        }
        /// A disconnect that came while its event was off, once the event is switched on.
        "DISC-02" late_disconnect: LateDisconnect {
            /// It was missed.
            Missed,
            /// It is indicated then.
            ToldWhenEnabled,
        }
        /// End of a graceful disconnect.
        "DISC-21" graceful_end: GracefulEnd {
            /// The peer has acknowledged everything, the end included; at once where the host cannot
            /// tell.
            Acknowledged,
            /// The peer has ended its side as well.
            BothEnded,
        }
        /// An abortive disconnect with a buffer.
        "DISC-24" abortive_buffer: AbortiveBuffer {
            /// `STATUS_INVALID_PARAMETER`
            Refused,
            /// The buffer is ignored.
            Ignored,
        }
        /// `*BytesAccepted` when `WskReceiveEvent` is entered.
        "RCVE-16" bytes_accepted: BytesAccepted {
            /// All the bytes indicated.
            Indicated,
            /// Zero.
            Zero,
        }
        /// Transfers after a reset.
        "SND-18" after_reset: AfterReset {
            /// Either, for each call anew.
            Either,
            /// `STATUS_CONNECTION_RESET`
            Reset,
            /// `STATUS_FILE_FORCED_CLOSED`
            ForcedClosed,
        }
        /// A socket whose connect has failed.
        "CONN-04" failed_connect: FailedConnect {
            /// Answers `STATUS_INVALID_DEVICE_STATE`.
            Refused,
            /// Can connect again.
            Retry,
        }
        /// `WskAccept` on a bound stream socket before `WskListen`.
        "STRM-08" accept_before_listen: AcceptBeforeListen {
            /// `STATUS_INVALID_DEVICE_STATE`
            Refused,
            /// Queued with `STATUS_PENDING`.
            Queued,
        }
        /// `SO_CONDITIONAL_ACCEPT` on a stream socket.
        "STRM-12" conditional_stream: ConditionalStream {
            /// `STATUS_NOT_SUPPORTED`
            Refused,
            /// Accepted.
            Accepted,
        }
        /// The forms of `SIO_WSK_SET_RECEIVE_EX_CALLBACK`.
        "IOC-15" receive_ex_irp: ReceiveExIrp {
            /// With an IRP or without.
            Both,
            /// Only with an IRP.
            Required,
            /// Only without.
            Forbidden,
        }
        /// The entries of an address where the hints of `WskGetAddressInfo` leave the socket type or the
        /// protocol open.
        "NAME-12" address_entries: AddressEntries {
            /// One for each protocol, TCP and UDP, that the hints do not rule out.
            PerProtocol,
            /// One, with the values of the hints.
            Single,
        }
        /// Account that resolves a name when no process is given.
        "NAME-07" name_process: NameProcess {
            /// An account of minimal rights.
            Minimal,
            /// The current process.
            Current,
        }
    }
}
