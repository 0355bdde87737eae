//! Taking a node's pods over from a Linux bridge under traffic, and giving them back.
//!
//! In: a bridge as it stands ([`observe`]), and what other programs noted of its pods ([`ipam`]).
//! Out: one list of [`steps`] that is walked forwards to adopt, backwards to release or to undo.
//! Never: begins before all of it was looked at; leaves a step half done; forgets the way back.
//!
//! ```text
//! forwards                                   backwards
//!   a TAP for each pod, tied to its veth       ...and gone again
//!   the switch opens them, and knows them all  closes them
//!   the gateway's addresses go to the TAP      to the bridge
//!   each pod's frames go to the switch         to the bridge
//!   the veths leave the bridge                 join it
//!   bridge and TAP change names                change names
//! ```
//!
//! A classifier on a veth's ingress runs before the bridge hears of the frame, so a pod moves in one
//! instant, each by itself, and both ways of reaching it work while others have yet to move.

pub mod dns;
pub mod ipam;
pub mod kept;
pub mod observe;
pub mod remains;
pub mod steps;
pub mod walk;
