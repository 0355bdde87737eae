//! The daemon's end of the control socket.
//!
//! In: connections of root and of the daemon's own user. Out: a [`Call`] for the [`Handler`], and
//! its answer as JSON.
//! Never: trusts a length, waits for a client for ever, or runs on a thread that moves frames: it
//! has a thread of its own, and the handler's work is done on a few more.
//!
//! A connection carries one request. Who connects is known from the kernel (`SO_PEERCRED`), before
//! a byte is read.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::{Mode, OFlags};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::timeout;

use super::capture::{CaptureId, CaptureRequest};
use super::client::{Client, ClientError};
use super::types::{
    API_HEADER, API_MAX, API_MIN, AddRequest, ApiError, CheckRequest, DelRequest, ErrorKind,
    ErrorReply, GcRequest, HandoverRequest, UpgradeRequest, VersionReply,
};
use super::views::View;

/// A request that has been understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `GET /v1/status`.
    Status,
    /// `GET /v1/ports` and its like.
    View(View),
    /// `GET /v1/metrics`.
    Metrics,
    /// `POST /v1/reload`.
    Reload,
    /// `POST /v1/trace`.
    Trace(serde_json::Value),
    /// `POST /v1/attachments`.
    Add(Box<AddRequest>),
    /// `POST /v1/attachments/delete`.
    Del(DelRequest),
    /// `POST /v1/attachments/check`.
    Check(Box<CheckRequest>),
    /// `POST /v1/attachments/gc`.
    Gc(GcRequest),
    /// `POST /v1/upgrade`.
    Upgrade(UpgradeRequest),
    /// `POST /v1/adopt`.
    Adopt(Box<HandoverRequest>),
    /// `POST /v1/confirm`.
    Confirm,
    /// `POST /v1/release`.
    Release(Box<HandoverRequest>),
    /// `POST /v1/capture`.
    Capture(CaptureRequest),
    /// `POST /v1/capture/read`.
    CaptureRead(CaptureId),
    /// `POST /v1/capture/stop`.
    CaptureStop(CaptureId),
}

/// What a handler answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A document.
    Json(serde_json::Value),
    /// Text, and of which type.
    Text(&'static str, String),
}

impl Answer {
    /// The document that `thing` is.
    #[must_use]
    pub fn of(thing: &impl serde::Serialize) -> Answer {
        Answer::Json(serde_json::to_value(thing).expect("our own types have text keys"))
    }
}

/// Who answers. Called from several threads at once; it may block.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    ///
    /// # Errors
    /// Why not.
    fn handle(&self, call: Call) -> Result<Answer, ApiError>;
}

/// What one client, and all of them, may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted. A runtime works on as many pods at
    /// once as a node has, 250 at most.
    pub connections: usize,
    /// Requests worked on at once.
    pub threads: usize,
    /// Bytes of a request's line and headers.
    pub head: usize,
    /// Bytes of a request's body. A GC that names 250 attachments has 30,000.
    pub body: usize,
    /// Bytes of a request that was refused before its end which are taken in all the same: a client
    /// that is still writing when the door closes would never read why.
    pub unread: usize,
    /// How long a request may take to come in: once for its head, once for its body, and once for
    /// what nobody wants to read.
    pub patience: Duration,
    /// How long a connection may last in all.
    pub life: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 256,
            threads: 8,
            head: 16 << 10,
            body: 1 << 20,
            unread: 16 << 20,
            patience: Duration::from_secs(5),
            life: Duration::from_secs(120),
        }
    }
}

/// A socket that listens, and is not served yet: clients that connect wait.
#[derive(Debug)]
pub struct Bound {
    listener: StdListener,
    path: PathBuf,
    /// The socket itself, where no folder has it.
    held: Option<OwnedFd>,
}

impl Bound {
    /// Listens at `path`, which only its owner may open. A socket that a dead daemon left there is
    /// replaced.
    ///
    /// # Errors
    /// `AddrInUse` if somebody answers there, or what is there is no socket.
    pub fn at(path: &Path) -> io::Result<Bound> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        clear(path)?;
        // Whoever connects before the mode is set is refused by the check of its user all the same.
        let listener = StdListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(Bound {
            listener,
            path: path.to_owned(),
            held: None,
        })
    }

    /// Listens at a socket that only this process and who is told its path can find: it is in no
    /// folder, and so is gone with this process, however that ends.
    ///
    /// # Errors
    /// What the folder for temporary files says.
    pub fn nameless() -> io::Result<Bound> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tapline-{}-{count}.sock", std::process::id());
        let mut bound = Bound::at(&std::env::temp_dir().join(name))?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let held = rustix::fs::open(&bound.path, flags, Mode::empty())?;
        std::fs::remove_file(&bound.path)?;
        // By number and process, because a thread's own `/proc/self` is the same.
        let number = held.as_raw_fd();
        bound.path = PathBuf::from(format!("/proc/{}/fd/{number}", std::process::id()));
        bound.held = Some(held);
        Ok(bound)
    }

    /// Goes on listening at a socket at `path` that another daemon hands over.
    ///
    /// # Errors
    /// What the system says of the descriptor.
    pub fn handed(listener: OwnedFd, path: &Path) -> io::Result<Bound> {
        let listener = StdListener::from(listener);
        listener.set_nonblocking(true)?;
        Ok(Bound {
            listener,
            path: path.to_owned(),
            held: None,
        })
    }

    /// The socket once more, to be handed over.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.listener.try_clone().map(OwnedFd::from)
    }

    /// Begins to answer, on a thread of its own, the users in `users`.
    ///
    /// # Errors
    /// What making a thread or its reactor says.
    pub fn serve(
        self,
        handler: Arc<dyn Handler>,
        users: Vec<u32>,
        limits: Limits,
    ) -> io::Result<Server> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(limits.threads)
            .thread_name("tapline-api")
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::from_std(self.listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let door = Door {
            handler,
            users: users.into(),
            limits,
            path: self.path.as_path().into(),
            moved: Arc::default(),
        };
        let thread = std::thread::Builder::new().name("tapline-api".into());
        let thread = thread.spawn(move || {
            runtime.block_on(async move {
                let room = Arc::new(Semaphore::new(limits.connections));
                let ending = tokio::select! {
                    // It ends where another daemon accepts; whoever is here is answered all the same.
                    () = async {
                        door.accept(listener, Arc::clone(&room)).await;
                        std::future::pending().await
                    } => Ending::Now,
                    ending = stopped => ending.unwrap_or(Ending::Now),
                };
                if let (Ending::Answered(within), Ok(all)) =
                    (ending, u32::try_from(limits.connections))
                {
                    // Each connection has a place, and gives it back when it ends.
                    let _ = timeout(within, room.acquire_many(all)).await;
                }
            });
            // What is being worked on is finished: half an ADD would be worse than a late stop.
            runtime.shutdown_timeout(Duration::from_secs(10));
        })?;
        Ok(Server {
            stop: Some(stop),
            thread: Some(thread),
            path: self.path,
            held: self.held,
        })
    }
}

/// Removes a socket that nobody answers.
fn clear(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let in_the_way = |why: &str| {
        let why = format!("{}: {why}", path.display());
        Err(io::Error::new(io::ErrorKind::AddrInUse, why))
    };
    match std::fs::symlink_metadata(path) {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(other) => Err(other),
        Ok(found) if !found.file_type().is_socket() => in_the_way("is no socket"),
        Ok(_) => match StdStream::connect(path) {
            Ok(_) => in_the_way("another daemon answers there"),
            Err(_) => std::fs::remove_file(path),
        },
    }
}

/// How a server ends.
#[derive(Debug)]
enum Ending {
    /// Whoever has not been answered is not.
    Now,
    /// Whoever is connected is answered first, as far as that takes no longer.
    Answered(Duration),
}

/// A socket that is served. Dropping it stops that, and removes the socket.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<Ending>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
    held: Option<OwnedFd>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops, and leaves the socket to a daemon that has it by now. Who is connected here gets an
    /// answer, for which it is waited as long as `within`.
    pub fn leave(mut self, within: Duration) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(Ending::Answered(within));
        }
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has left has no thread any more, and no socket.
        if self.held.is_none() && self.thread.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
        self.end();
    }
}

/// Who is let in, and to whom.
#[derive(Clone)]
struct Door {
    handler: Arc<dyn Handler>,
    users: Arc<[u32]>,
    limits: Limits,
    path: Arc<Path>,
    /// Another daemon has taken this one's place: what is relayed to it must not come in here again.
    moved: Arc<Notify>,
}

impl Door {
    async fn accept(self, listener: UnixListener, room: Arc<Semaphore>) {
        loop {
            let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                biased;
                () = self.moved.notified() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                // Out of descriptors, most likely: others may close theirs meanwhile.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue;
                }
            };
            let door = self.clone();
            tokio::spawn(async move {
                let life = door.limits.life;
                let _ = timeout(life, door.admit(stream)).await;
                drop(place);
            });
        }
    }

    async fn admit(self, mut stream: UnixStream) {
        let known = stream.peer_cred().map(|peer| peer.uid());
        if !known.as_ref().is_ok_and(|uid| self.users.contains(uid)) {
            let who = known.map_or_else(|e| e.to_string(), |uid| format!("user {uid}"));
            turn_away(stream, self.limits.patience, &who).await;
            return;
        }
        let limits = self.limits;
        let service = service_fn(move |request| {
            let door = self.clone();
            async move { Ok::<_, std::convert::Infallible>(door.answer(request).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.patience)
            .max_buf_size(limits.head)
            // A client may close its writing side once it has asked, and is answered all the same.
            .half_close(true)
            .keep_alive(false);
        let _ = http
            .serve_connection(TokioIo::new(&mut stream), service)
            .await;
        let _ = timeout(limits.patience, hear_out(stream, limits.unread)).await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.understand(request).await {
            Ok(Understood::Version) => to_response(&Answer::of(&VersionReply::own())),
            Ok(Understood::Call(call, sent)) => {
                let handler = Arc::clone(&self.handler);
                let next = Client::new(&self.path).within(self.limits.life);
                let moved = Arc::clone(&self.moved);
                let work = tokio::task::spawn_blocking(move || match handler.handle(call) {
                    Err(error) if error.kind == ErrorKind::Moved => {
                        moved.notify_one();
                        sent.relayed(&next)
                    }
                    answer => answer.map(|answer| to_response(&answer)),
                });
                match work.await {
                    Ok(Ok(response)) => response,
                    Ok(Err(error)) => to_error(error),
                    Err(_) => to_error(ApiError::new(
                        ErrorKind::Internal,
                        "the daemon failed at this request, see its log",
                    )),
                }
            }
            Err(error) => to_error(error),
        }
    }

    async fn understand(&self, request: Request<Incoming>) -> Result<Understood, ApiError> {
        let (head, body) = request.into_parts();
        let rest = head.uri.path().strip_prefix("/v1/").unwrap_or_default();
        let wanted = Wanted::at(rest)
            .ok_or_else(|| ApiError::new(ErrorKind::NotFound, format!("no {}", head.uri.path())))?;
        if head.method != wanted.method() {
            let why = format!("{} takes {}", head.uri.path(), wanted.method());
            return Err(ApiError::new(ErrorKind::BadMethod, why));
        }
        if let Wanted::Version = wanted {
            return Ok(Understood::Version);
        }
        version_spoken(head.headers.get(API_HEADER))?;
        let body = self.body(body).await?;
        let call = wanted.call(&body)?;
        let sent = Sent {
            wanted,
            path: head.uri.path().to_owned(),
            body,
        };
        Ok(Understood::Call(call, sent))
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, ApiError> {
        let most = self.limits.body;
        let read = timeout(self.limits.patience, Limited::new(body, most).collect()).await;
        match read {
            Err(_) => Err(ApiError::new(
                ErrorKind::Slow,
                "the request's body did not come in time",
            )),
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                let why = format!("a request's body has {most} bytes at most");
                Err(ApiError::new(ErrorKind::TooLarge, why))
            }
            Ok(Err(error)) => Err(ApiError::new(ErrorKind::BadRequest, error.to_string())),
        }
    }
}

/// Lets a client finish what it is saying, up to so many bytes, so that it comes to read its answer.
async fn hear_out(mut stream: UnixStream, most: usize) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = stream.take(most as u64);
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Says no to a stranger, without reading a byte of them.
async fn turn_away(mut stream: UnixStream, patience: Duration, who: &str) {
    let error = ApiError::new(ErrorKind::Forbidden, format!("{who} may not ask"));
    let body = serde_json::to_string(&ErrorReply { error }).expect("it has text keys");
    let text = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = timeout(patience, stream.write_all(text.as_bytes())).await;
}

/// A path that is known.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    Version,
    Status,
    View(View),
    Metrics,
    Reload,
    Trace,
    Add,
    Del,
    Check,
    Gc,
    Upgrade,
    Adopt,
    Confirm,
    Release,
    Capture,
    CaptureRead,
    CaptureStop,
}

enum Understood {
    Version,
    Call(Call, Sent),
}

/// A request as it came, in case another daemon has to answer it.
struct Sent {
    wanted: Wanted,
    path: String,
    body: Bytes,
}

impl Sent {
    /// What the next daemon answers. The socket is its own by now, and whoever connects before it
    /// accepts waits.
    fn relayed(self, next: &Client) -> Result<Response<Full<Bytes>>, ApiError> {
        let kind = match self.wanted {
            Wanted::Metrics => crate::metrics::CONTENT_TYPE,
            _ => "application/json",
        };
        match next.ask(self.wanted.method(), &self.path, self.body) {
            Ok(body) => Ok(response(200, kind, body)),
            Err(ClientError::Refused(error)) => Err(error),
            Err(error) => Err(ApiError::new(ErrorKind::NotReady, error.to_string())),
        }
    }
}

impl Wanted {
    fn at(path: &str) -> Option<Wanted> {
        Some(match path {
            "version" => Wanted::Version,
            "status" => Wanted::Status,
            "metrics" => Wanted::Metrics,
            "reload" => Wanted::Reload,
            "trace" => Wanted::Trace,
            "attachments" => Wanted::Add,
            "attachments/delete" => Wanted::Del,
            "attachments/check" => Wanted::Check,
            "attachments/gc" => Wanted::Gc,
            "upgrade" => Wanted::Upgrade,
            "adopt" => Wanted::Adopt,
            "confirm" => Wanted::Confirm,
            "release" => Wanted::Release,
            "capture" => Wanted::Capture,
            "capture/read" => Wanted::CaptureRead,
            "capture/stop" => Wanted::CaptureStop,
            other => Wanted::View(View::named(other)?),
        })
    }

    fn method(self) -> Method {
        match self {
            Wanted::Version | Wanted::Status | Wanted::View(_) | Wanted::Metrics => Method::GET,
            _ => Method::POST,
        }
    }

    fn call(self, body: &[u8]) -> Result<Call, ApiError> {
        Ok(match self {
            // `Version` is answered before.
            Wanted::Version | Wanted::Status => Call::Status,
            Wanted::View(view) => Call::View(view),
            Wanted::Metrics => Call::Metrics,
            Wanted::Reload => Call::Reload,
            Wanted::Trace => Call::Trace(read(body)?),
            Wanted::Add => Call::Add(read(body)?),
            Wanted::Del => Call::Del(read(body)?),
            Wanted::Check => Call::Check(read(body)?),
            Wanted::Gc => Call::Gc(read(body)?),
            Wanted::Upgrade => Call::Upgrade(read(body)?),
            Wanted::Adopt => Call::Adopt(read(body)?),
            Wanted::Confirm => Call::Confirm,
            Wanted::Release => Call::Release(read(body)?),
            Wanted::Capture => Call::Capture(read(body)?),
            Wanted::CaptureRead => Call::CaptureRead(read(body)?),
            Wanted::CaptureStop => Call::CaptureStop(read(body)?),
        })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new(ErrorKind::BadRequest, format!("the request: {error}")))
}

/// A client that says nothing of its version is of any.
fn version_spoken(header: Option<&HeaderValue>) -> Result<(), ApiError> {
    let Some(header) = header else { return Ok(()) };
    let spoken = header.to_str().ok().and_then(|text| text.parse().ok());
    match spoken {
        Some(version) if (API_MIN..=API_MAX).contains(&version) => Ok(()),
        _ => Err(ApiError::new(
            ErrorKind::Version,
            format!(
                "the daemon speaks versions {API_MIN} to {API_MAX} of its interface, not {header:?}"
            ),
        )),
    }
}

fn to_response(answer: &Answer) -> Response<Full<Bytes>> {
    match answer {
        Answer::Json(document) => response(200, "application/json", document.to_string()),
        Answer::Text(kind, text) => response(200, kind, text.clone()),
    }
}

fn to_error(error: ApiError) -> Response<Full<Bytes>> {
    let kind = error.kind;
    let body = serde_json::to_string(&ErrorReply { error }).expect("it has text keys");
    let mut response = response(kind.status(), "application/json", body);
    if kind == ErrorKind::BadMethod {
        let both = HeaderValue::from_static("GET, POST");
        response.headers_mut().insert(ALLOW, both);
    }
    response
}

fn response(status: u16, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(status).expect("three digits");
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests;
