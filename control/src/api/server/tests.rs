//! The socket, met by good clients and by bad ones.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use super::*;
use crate::api::client::{Client, ClientError};
use crate::api::types::{AddReply, Key, Removed};

/// Answers, counts, and takes as long as it is told.
#[derive(Default)]
struct Echo {
    calls: AtomicU64,
}

impl Handler for Echo {
    fn handle(&self, call: Call) -> Result<Answer, ApiError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match call {
            Call::Del(request) => Ok(Answer::of(&Removed {
                removed: vec![request.key],
            })),
            Call::Add(request) if request.key.ifname == "wait" => {
                std::thread::sleep(Duration::from_millis(300));
                let nothing = AddReply {
                    interfaces: Vec::new(),
                    ips: Vec::new(),
                    routes: Vec::new(),
                };
                Ok(Answer::of(&nothing))
            }
            Call::Add(_) => Err(ApiError::new(ErrorKind::Exhausted, "none is free")),
            Call::Metrics => Ok(Answer::Text("text/plain", "a 1\n".to_owned())),
            Call::Trace(_) => panic!("a fault of ours, on purpose"),
            _ => Ok(Answer::Json(serde_json::json!({}))),
        }
    }
}

struct Socket {
    folder: tempfile::TempDir,
    server: Server,
    echo: Arc<Echo>,
}

fn own() -> Vec<u32> {
    vec![rustix::process::geteuid().as_raw()]
}

impl Socket {
    fn open(limits: Limits, users: Vec<u32>) -> Socket {
        let folder = tempfile::tempdir().unwrap();
        let echo = Arc::new(Echo::default());
        let bound = Bound::at(&folder.path().join("run/tapline.sock")).unwrap();
        let server = bound
            .serve(Arc::<Echo>::clone(&echo), users, limits)
            .unwrap();
        Socket {
            folder,
            server,
            echo,
        }
    }

    fn client(&self) -> Client {
        Client::new(self.server.path()).within(Duration::from_secs(5))
    }

    /// What the server answers to these very bytes, up to the end of the connection.
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = StdStream::connect(self.server.path()).unwrap();
        // The server may hang up before it has heard all of it.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn calls(&self) -> u64 {
        self.echo.calls.load(Ordering::SeqCst)
    }
}

fn del() -> DelRequest {
    DelRequest {
        key: Key {
            network: "net".into(),
            container_id: "c1".into(),
            ifname: "eth0".into(),
        },
        netns: None,
    }
}

fn add(ifname: &str) -> AddRequest {
    let text = format!(
        r#"{{"container_id": "c1", "ifname": "{ifname}", "netns": "/n", "network": "net"}}"#
    );
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_request_is_answered_and_an_error_keeps_kind_and_code() {
    let socket = Socket::open(Limits::default(), own());
    let client = socket.client();
    assert_eq!(client.version().unwrap(), VersionReply::own());
    assert_eq!(client.del(&del()).unwrap().removed, [del().key]);
    assert_eq!(client.text("/v1/metrics").unwrap(), "a 1\n");
    let Err(ClientError::Refused(error)) = client.add(&add("eth0")) else {
        panic!("refused");
    };
    assert_eq!((error.kind, error.code), (ErrorKind::Exhausted, 51));
    let unknown = client.get::<serde_json::Value>("/v1/nothing");
    assert!(
        matches!(unknown, Err(ClientError::Refused(e)) if e.kind == ErrorKind::NotFound),
        "an unknown path"
    );
    let wrong = client.get::<serde_json::Value>("/v1/reload");
    assert!(matches!(wrong, Err(ClientError::Refused(e)) if e.kind == ErrorKind::BadMethod));
}

/// As `nc -N` and `socat` do it. Without an answer to it, whether one came was a race of the end of
/// the stream with the handler.
#[test]
fn a_client_that_has_said_all_and_closed_that_side_is_answered() {
    let socket = Socket::open(Limits::default(), own());
    let body = r#"{"container_id": "c1", "ifname": "wait", "netns": "/n", "network": "net"}"#;
    let head = format!(
        "POST /v1/attachments HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = socket.raw(format!("{head}{body}").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
    assert_eq!(socket.calls(), 1);
}

#[test]
fn a_socket_without_a_name_is_found_by_who_is_told_and_leaves_nothing() {
    let bound = Bound::nameless().unwrap();
    let server = bound
        .serve(Arc::<Echo>::default(), own(), Limits::default())
        .unwrap();
    let path = server.path().to_owned();
    assert!(Client::new(&path).del(&del()).is_ok());
    drop(server);
    assert!(Client::new(&path).del(&del()).is_err());
    let mark = format!("tapline-{}-", std::process::id());
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&mark));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_handler_that_panics_costs_one_answer() {
    let socket = Socket::open(Limits::default(), own());
    let answer = socket
        .client()
        .post::<serde_json::Value>("/v1/trace", &serde_json::json!({}));
    assert!(matches!(answer, Err(ClientError::Refused(e)) if e.kind == ErrorKind::Internal));
    assert!(socket.client().del(&del()).is_ok(), "the next is served");
}

#[test]
fn a_stranger_is_turned_away_and_heard_by_nobody() {
    let stranger = own()[0] + 1;
    let socket = Socket::open(Limits::default(), vec![stranger]);
    let Err(ClientError::Refused(error)) = socket.client().del(&del()) else {
        panic!("let in");
    };
    assert_eq!(error.kind, ErrorKind::Forbidden);
    assert_eq!(socket.calls(), 0);
}

#[test]
fn what_is_no_request_is_refused_before_the_handler() {
    let limits = Limits {
        body: 1000,
        head: 8192,
        patience: Duration::from_secs(3),
        ..Limits::default()
    };
    let socket = Socket::open(limits, own());
    let post = |path: &str, header: &str, body: &[u8]| {
        let mut bytes = format!(
            "POST {path} HTTP/1.1\r\nhost: t\r\n{header}content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        bytes.extend(body);
        socket.raw(&bytes)
    };
    for (what, answer, wanted) in [
        ("garbage", socket.raw(&[0xff; 300]), "400 Bad Request"),
        (
            "a head without end",
            socket.raw(
                &[
                    b"GET /v1/status HTTP/1.1\r\na: ".as_slice(),
                    &[b'a'; 20_000],
                ]
                .concat(),
            ),
            "431",
        ),
        (
            "no JSON",
            post("/v1/attachments", "", b"{\"container_id\": "),
            "400 Bad Request",
        ),
        (
            "JSON of another shape",
            post("/v1/attachments", "", b"[1, 2]"),
            "400 Bad Request",
        ),
        (
            "too deep",
            post("/v1/attachments", "", &[b'['; 900]),
            "400 Bad Request",
        ),
        (
            "too much",
            post("/v1/attachments", "", &[b' '; 5000]),
            "413 Payload Too Large",
        ),
        (
            "another version",
            post("/v1/attachments/delete", "tapline-api: 9\r\n", b"{}"),
            "\"kind\":\"version\"",
        ),
    ] {
        assert!(answer.contains(wanted), "{what}: {answer}");
    }
    assert_eq!(socket.calls(), 0, "none of them was heard");
    assert!(socket.client().del(&del()).is_ok());
}

/// More than a socket's buffer holds: whoever hangs up under a client that is still writing lets it
/// see a broken pipe, and no reason.
#[test]
fn a_client_whose_request_is_too_large_reads_that_it_is() {
    let socket = Socket::open(Limits::default(), own());
    let long = AddRequest {
        netns: "x".repeat(3 << 20).into(),
        ..add("eth0")
    };
    for _ in 0..20 {
        match socket.client().add(&long) {
            Err(ClientError::Refused(error)) => assert_eq!(error.kind, ErrorKind::TooLarge),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(socket.calls(), 0);
}

#[test]
fn a_client_that_dawdles_is_cut_off_and_holds_up_nobody() {
    let limits = Limits {
        connections: 4,
        patience: Duration::from_millis(200),
        ..Limits::default()
    };
    let socket = Socket::open(limits, own());
    let begun = Instant::now();
    let heads = [
        "",
        "GET /v1/st",
        "POST /v1/attachments HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{",
    ];
    // More of them than there is room for: the good one waits until they are cut off.
    let dawdlers: Vec<StdStream> = (0..12)
        .map(|at| {
            let mut stream = StdStream::connect(socket.server.path()).unwrap();
            stream.write_all(heads[at % 3].as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(socket.client().del(&del()).is_ok());
    assert!(begun.elapsed() < Duration::from_secs(3), "{begun:?}");
    drop(dawdlers);
}

#[test]
fn a_client_does_not_wait_for_ever_either() {
    let socket = Socket::open(Limits::default(), own());
    let hasty = socket.client().within(Duration::from_millis(50));
    assert!(matches!(
        hasty.add(&add("wait")),
        Err(ClientError::Slow { .. })
    ));
    let nobody = Client::new(&socket.folder.path().join("nobody"));
    let unreachable = nobody.version().unwrap_err();
    assert!(matches!(unreachable, ClientError::Unreachable { .. }));
}

#[test]
fn a_second_daemon_is_refused_and_a_dead_ones_socket_is_replaced() {
    let socket = Socket::open(Limits::default(), own());
    let path = socket.server.path().to_owned();
    let second = Bound::at(&path).unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    let dead = socket.folder.path().join("dead.sock");
    drop(StdListener::bind(&dead).unwrap());
    assert!(dead.exists());
    assert!(Bound::at(&dead).is_ok());
    let file = socket.folder.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    assert!(Bound::at(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    drop(socket);
    assert!(!path.exists());
}
