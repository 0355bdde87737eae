//! A client's end of the control socket, for the command line and the CNI plugin.
//!
//! In: the socket's path, and a request. Out: the daemon's answer, or a [`ClientError`].
//! Never: waits longer than it was told, or is called from inside a reactor: it blocks.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixStream;

use super::types::{
    API_HEADER, API_MAX, AddReply, AddRequest, ApiError, CheckRequest, DelRequest, ErrorReply,
    GcRequest, Removed, VersionReply,
};

/// How long a request takes at most, unless told otherwise: an ADD takes milliseconds, and one on
/// a node that starts 250 pods at once waits for the others.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// The largest answer: a million routes, as text.
const ANSWER_MAX: usize = 256 << 20;

/// The daemon could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("no daemon answers at {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What connecting says.
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("the daemon at {} did not answer within {within:?}", path.display())]
    Slow {
        /// The socket.
        path: PathBuf,
        /// How long it was waited for.
        within: Duration,
    },
    /// The connection broke, or what came is no answer.
    #[error("the answer of the daemon at {} broke off: {why}", path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// How it is broken.
        why: String,
    },
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

/// Asks the daemon.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
    within: Duration,
}

impl Client {
    /// Of the daemon at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Client {
        Client {
            path: path.to_owned(),
            within: TIMEOUT_DEFAULT,
        }
    }

    /// With that timeout for each request.
    #[must_use]
    pub fn within(self, within: Duration) -> Client {
        Client { within, ..self }
    }

    /// Which versions the daemon speaks.
    ///
    /// # Errors
    /// That it could not be asked.
    pub fn version(&self) -> Result<VersionReply, ClientError> {
        self.get("/v1/version")
    }

    /// ADD.
    ///
    /// # Errors
    /// That it could not be asked, or why not.
    pub fn add(&self, request: &AddRequest) -> Result<AddReply, ClientError> {
        self.post("/v1/attachments", request)
    }

    /// DEL.
    ///
    /// # Errors
    /// That it could not be asked, or why not.
    pub fn del(&self, request: &DelRequest) -> Result<Removed, ClientError> {
        self.post("/v1/attachments/delete", request)
    }

    /// CHECK.
    ///
    /// # Errors
    /// That it could not be asked, or what differs.
    pub fn check(&self, request: &CheckRequest) -> Result<serde_json::Value, ClientError> {
        self.post("/v1/attachments/check", request)
    }

    /// GC.
    ///
    /// # Errors
    /// That it could not be asked, or what could not be removed.
    pub fn gc(&self, request: &GcRequest) -> Result<Removed, ClientError> {
        self.post("/v1/attachments/gc", request)
    }

    /// The document at `path`.
    ///
    /// # Errors
    /// That the daemon could not be asked, or why not.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.ask(Method::GET, path, Bytes::new())?;
        self.read(&answer)
    }

    /// The text at `path`.
    ///
    /// # Errors
    /// That the daemon could not be asked, or why not.
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        let answer = self.ask(Method::GET, path, Bytes::new())?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// What the daemon answers to `body` at `path`.
    ///
    /// # Errors
    /// That the daemon could not be asked, or why not.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|why| self.garbled(&why.to_string()))?;
        let answer = self.ask(Method::POST, path, body.into())?;
        self.read(&answer)
    }

    fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|why| self.garbled(&why.to_string()))
    }

    fn garbled(&self, why: &str) -> ClientError {
        ClientError::Garbled {
            path: self.path.clone(),
            why: why.to_owned(),
        }
    }

    /// What the daemon answers to a request as it is.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ClientError> {
        let unreachable = |source| ClientError::Unreachable {
            path: self.path.clone(),
            source,
        };
        let stream = self.connect().map_err(unreachable)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(unreachable)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "tapline")
            .header(API_HEADER, API_MAX)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|why| self.garbled(&why.to_string()))?;
        let exchange = async {
            let stream = UnixStream::from_std(stream).map_err(|e| self.garbled(&e.to_string()))?;
            self.exchange(stream, request).await
        };
        let answered =
            runtime.block_on(async { tokio::time::timeout(self.within, exchange).await });
        answered.unwrap_or_else(|_| {
            Err(ClientError::Slow {
                path: self.path.clone(),
                within: self.within,
            })
        })
    }

    /// Waits for its turn where many connect at once: without blocking the kernel would refuse.
    fn connect(&self) -> io::Result<std::os::unix::net::UnixStream> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_write_timeout(Some(self.within))?;
        socket.connect(&SockAddr::unix(&self.path)?)?;
        socket.set_nonblocking(true)?;
        Ok(std::os::fd::OwnedFd::from(socket).into())
    }

    async fn exchange(
        &self,
        stream: UnixStream,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, ClientError> {
        let broken = |why: hyper::Error| self.garbled(&why.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect();
        let body = body.await.map_err(|why| self.garbled(&why.to_string()))?;
        connection.abort();
        let body = body.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        match serde_json::from_slice::<ErrorReply>(&body) {
            Ok(reply) => Err(reply.error.into()),
            Err(_) => Err(self.garbled(&format!("status {status}"))),
        }
    }
}
