//! Metrics over HTTP, at an address of the node.
//!
//! In: an address, and a way to make the text. Out: a server on a thread of its own.
//! Never: answers anything but `GET /metrics`, waits for a client for ever, or asks the switch more
//! often than it answers.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

/// Connections at once: a few Prometheus servers, and an operator.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may last; a scrape has ten seconds by default.
const LIFE: Duration = Duration::from_secs(10);
/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(3);

/// Makes the text, on the server's thread.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Exporter {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    /// Serves at `address`, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL` and what else binding says; what starting a thread says.
    pub fn start(address: SocketAddr, render: Render) -> io::Result<Exporter> {
        Exporter::serve(StdListener::bind(address)?, render)
    }

    /// Serves at a socket that listens already.
    ///
    /// # Errors
    /// What starting a thread says.
    pub fn serve(listener: StdListener, render: Render) -> io::Result<Exporter> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("metrics".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, render) => {}
                        // Either word, or its sender's end, is a stop.
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Exporter {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: StdListener, render: Render) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of descriptors, or a client that went: neither is cured by haste.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let render = Arc::clone(&render);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &render);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false);
            // A client that breaks off breaks off.
            let _ = timeout(LIFE, http.serve_connection(TokioIo::new(stream), service)).await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, render: &Render) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, render()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned()),
        _ => (
            StatusCode::NOT_FOUND,
            "metrics are at /metrics\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(super::CONTENT_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET"));
    }
    response
}
