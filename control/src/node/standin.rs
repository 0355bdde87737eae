//! Stand-ins for Azure's wireserver and metadata service, for the lab and for tests.
//!
//! In: an address, and the documents of a planned node. Out: a small HTTP server on a thread.
//! Never: serves anything but those documents, or outlives its handle.
//!
//! It also misbehaves on order: what a node must bear is tried against it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dataplane::addr::Mac;

use crate::plan::Node;

/// Bytes of a question that are read.
const QUESTION_MAX: usize = 4096;
/// How long one question may take to be asked.
const QUESTION_WITHIN: Duration = Duration::from_secs(2);

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answers {
    /// At `/machine/plugins`.
    pub interfaces: Vec<u8>,
    /// At `/metadata/instance/network`, to those who send the header `Metadata: true`.
    pub metadata: Vec<u8>,
    /// How it behaves.
    pub manners: Manners,
}

/// How a stand-in behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// As it should.
    Good,
    /// Status 500.
    Failing,
    /// One byte each tenth of a second.
    Slow,
    /// A body without end.
    Endless,
    /// A redirect to itself.
    Redirecting,
    /// Not HTTP.
    Garbage,
    /// Promises more than it sends.
    CutShort,
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct StandIn {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Serves `answers` at `address`, in the network namespace of the calling thread; port 0 is any.
    ///
    /// # Errors
    /// What binding the address or starting the thread says.
    pub fn start(address: SocketAddr, answers: Answers) -> io::Result<StandIn> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            for asked in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(asked) = asked {
                    // Who hangs up early, or never asks, is left to itself.
                    let _ = answer(asked, &answers, &stopped);
                }
            }
        };
        let thread = thread::Builder::new()
            .name("standin".to_owned())
            .spawn(serve)?;
        Ok(StandIn {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of its interface document.
    #[must_use]
    pub fn wireserver(&self) -> String {
        let path = "machine/plugins?comp=nmagent&type=getinterfaceinfov1";
        format!("http://{}/{path}", self.address)
    }

    /// The URL of its metadata.
    #[must_use]
    pub fn metadata(&self) -> String {
        let path = "metadata/instance/network?api-version=2021-02-01&format=json";
        format!("http://{}/{path}", self.address)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread, which then sees that it is to stop. If nobody can connect any more,
        // the namespace is gone or out of ports, and the thread is left to the process's end.
        let woken = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

fn answer(mut asked: TcpStream, answers: &Answers, stop: &AtomicBool) -> io::Result<()> {
    asked.set_read_timeout(Some(QUESTION_WITHIN))?;
    asked.set_write_timeout(Some(QUESTION_WITHIN))?;
    let mut question = Vec::new();
    let mut piece = [0; 512];
    while !question.windows(4).any(|end| end == b"\r\n\r\n") && question.len() < QUESTION_MAX {
        match asked.read(&mut piece)? {
            0 => return Ok(()),
            read => question.extend_from_slice(&piece[..read]),
        }
    }
    let question = String::from_utf8_lossy(&question).into_owned();
    let path = question.split(' ').nth(1).unwrap_or_default();
    let lower = question.to_ascii_lowercase();
    let body = if path.starts_with("/machine/plugins") {
        Some(&answers.interfaces)
    } else if path.starts_with("/metadata/instance/network") && lower.contains("\r\nmetadata: true")
    {
        Some(&answers.metadata)
    } else {
        None
    };
    let Some(body) = body else {
        return asked.write_all(&head("400 Bad Request", 0));
    };
    match answers.manners {
        Manners::Good => {
            asked.write_all(&head("200 OK", body.len()))?;
            asked.write_all(body)
        }
        Manners::Failing => asked.write_all(&head("500 Internal Server Error", 0)),
        Manners::Redirecting => {
            let text =
                format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n");
            asked.write_all(text.as_bytes())
        }
        Manners::Garbage => asked.write_all(&[0xde; 4096]),
        Manners::CutShort => {
            asked.write_all(&head("200 OK", body.len() + 1000))?;
            asked.write_all(body)
        }
        Manners::Slow => {
            asked.write_all(&head("200 OK", body.len()))?;
            trickle(&mut asked, body.chunks(1), Duration::from_millis(100), stop)
        }
        Manners::Endless => {
            asked.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            let blanks = [b' '; 8192];
            trickle(
                &mut asked,
                std::iter::repeat(&blanks[..]),
                Duration::ZERO,
                stop,
            )
        }
    }
}

fn trickle<'a>(
    to: &mut TcpStream,
    pieces: impl Iterator<Item = &'a [u8]>,
    pause: Duration,
    stop: &AtomicBool,
) -> io::Result<()> {
    for piece in pieces {
        if stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        to.write_all(piece)?;
        to.flush()?;
        thread::sleep(pause);
    }
    Ok(())
}

fn head(status: &str, length: usize) -> Vec<u8> {
    let text =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    text.into_bytes()
}

/// Azure's interface document for a planned node.
#[must_use]
pub fn interfaces_of(node: &Node, nic: Mac) -> Vec<u8> {
    let mut text = format!(
        "<Interfaces><Interface MacAddress=\"{}\" IsPrimary=\"true\"><IPSubnet Prefix=\"{}\">\
         <IPAddress Address=\"{}\" IsPrimary=\"true\"/>",
        plain(nic),
        node.subnet_prefix,
        node.primary_ip
    );
    for address in node.pod_ips.iter().flat_map(crate::plan::PodIps::iter) {
        text.push_str(&format!(
            "<IPAddress Address=\"{address}\" IsPrimary=\"false\"/>"
        ));
    }
    text.push_str("</IPSubnet></Interface></Interfaces>");
    text.into_bytes()
}

/// Azure's metadata for a planned node.
#[must_use]
pub fn metadata_of(node: &Node, nic: Mac) -> Vec<u8> {
    let pods = node.pod_ips.iter().flat_map(crate::plan::PodIps::iter);
    let addresses: Vec<serde_json::Value> = std::iter::once(node.primary_ip)
        .chain(pods)
        .map(|a| serde_json::json!({"privateIpAddress": a, "publicIpAddress": ""}))
        .collect();
    let subnet = node.subnet_prefix;
    let tree = serde_json::json!({"interface": [{
        "ipv4": {
            "ipAddress": addresses,
            "subnet": [{
                "address": subnet.network(),
                "prefix": subnet.prefix_len().to_string(),
            }],
        },
        "ipv6": {"ipAddress": []},
        "macAddress": plain(nic),
    }]});
    tree.to_string().into_bytes()
}

/// A MAC as Azure writes it: twelve digits.
fn plain(mac: Mac) -> String {
    mac.to_string().replace(':', "").to_uppercase()
}
