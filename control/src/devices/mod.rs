//! Devices of the kernel: namespaces, veths, TAPs, filters, and how they hang together.
//!
//! In: names, addresses and prefixes that the plan has checked.
//! Out: attachments of a switch: pod ports, the host port, the uplink.
//! Never: runs `ip` or `tc`, or works in a namespace that it was not given.
pub mod attach;
pub mod error;
pub mod masquerade;
pub mod name;
pub mod netlink;
pub mod netns;
pub mod sysctl;
pub mod tap;

pub use error::DeviceError;
pub use name::DeviceName;
pub use netlink::Netlink;
pub use netns::Netns;
