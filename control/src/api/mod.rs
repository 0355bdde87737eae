//! The control socket: HTTP and JSON over a unix socket.
//!
//! In: requests of the command line and of the CNI plugin. Out: answers of a [`Handler`].
//! Never: decides anything, or lets a client that is slow, broken, hostile or of another user cost
//! more than its own connection.
//!
//! | request | what it does |
//! |---|---|
//! | `GET /v1/version` | the program's version, and the versions of this interface that it speaks |
//! | `GET /v1/status` | whether attachments are served, and why not |
//! | `GET /v1/ports`, `fdb`, `routes`, ... | the views, see [`View`] |
//! | `GET /v1/metrics` | counters, as Prometheus reads them |
//! | `POST /v1/reload` | the configuration is read again |
//! | `POST /v1/upgrade` | another process takes the daemon's place |
//! | `POST /v1/trace` | where a frame would go |
//! | `POST /v1/attachments` | ADD of CNI; below it `delete`, `check`, `gc` |
//!
//! An error is `{"error": {"kind": ..., "message": ..., "code": ...}}`, its code that of CNI.

pub mod capture;
pub mod client;
pub mod server;
pub mod types;
pub mod views;

pub use client::{Client, ClientError};
pub use server::{Answer, Call, Handler, Limits, Server};
pub use types::{ApiError, ErrorKind};
pub use views::View;
