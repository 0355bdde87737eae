//! A trace for people: one block for each switch, one line for each step.
//!
//! In: a [`Trace`]. Out: text. Never: something that `--json` does not have.

use std::fmt::Write;

use super::report::{Edit, End, FrameRow, Hop, Sight, Trace};

/// The whole trace.
#[must_use]
pub fn to_text(trace: &Trace) -> String {
    let mut out = String::new();
    if let Some(asked) = &trace.asked {
        let by = asked.by.to_uppercase();
        let mac = asked.mac.as_ref();
        let told = mac.map_or_else(String::new, |mac| format!(" with {mac}"));
        let _ = writeln!(
            out,
            "{} asks {by} for {} on {}: answered by {}{told}\n",
            asked.asker, asked.address, asked.interface, asked.answer
        );
    }
    if let Some(frame) = &trace.frame {
        let _ = writeln!(out, "{}", frame_line(frame));
    }
    for note in &trace.notes {
        let _ = writeln!(out, "note: {note}");
    }
    if trace.frame.is_some() {
        out.push('\n');
    }
    for hop in &trace.hops {
        hop_block(&mut out, hop);
    }
    let _ = writeln!(out, "{}", ending(trace));
    out
}

/// `icmp echo request  10.20.0.31 > 10.20.0.43  ttl 64  98 bytes  (0a:.. > 12:..)`
fn frame_line(frame: &FrameRow) -> String {
    let mut line = frame.kind.clone();
    if let (Some(source), Some(target)) = (frame.source_ip, frame.target_ip) {
        let _ = write!(line, "  {source} > {target}");
    }
    if let Some(ttl) = frame.ttl {
        let _ = write!(line, "  ttl {ttl}");
    }
    let _ = write!(line, "  {} bytes", frame.bytes);
    if let Some(segment) = frame.segment_bytes {
        let _ = write!(line, " in segments of {segment}");
    }
    let _ = write!(line, "  ({} > {})", frame.source_mac, frame.target_mac);
    line
}

fn hop_block(out: &mut String, hop: &Hop) {
    let _ = match hop.at.as_str() {
        "fabric" => writeln!(out, "fabric, from {}", hop.ingress),
        at => writeln!(out, "{at}, in by {}", hop.ingress),
    };
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(out, "  {name:<10} {text}");
    };
    if !hop.seen_in.is_empty() {
        line("tcpdump", &sights(&hop.seen_in));
    }
    for step in &hop.steps {
        line(label(step.step), &step.text);
    }
    for edit in &hop.rewrite {
        line("rewrite", &edit_line(edit));
    }
    match &hop.drop {
        Some(death) => line("drop", &format!("{}: {}", death.reason, death.meaning)),
        None => line(hop.verdict, &format!("to {}", hop.egress.join(", "))),
    }
    if !hop.seen_out.is_empty() {
        line("tcpdump", &sights(&hop.seen_out));
    }
    out.push('\n');
}

/// A word for a step: the text behind it says the rest.
fn label(step: &'static str) -> &'static str {
    match step {
        "for_router" => "router",
        "from_uplink" => "uplink",
        "for_group" => "group",
        "no_station" => "station",
        "not_routable" => "target",
        "effective_route" => "route",
        other => other,
    }
}

fn edit_line(edit: &Edit) -> String {
    let field = match edit.field {
        "source_mac" => "source MAC",
        "target_mac" => "target MAC",
        other => other,
    };
    format!("{field} {} -> {}", edit.from, edit.to)
}

/// `eth0 in pod-a; azvcbefedbacea, tapcbefedbacea in node-0`
fn sights(sights: &[Sight]) -> String {
    let mut places: Vec<(&str, Vec<&str>)> = Vec::new();
    for Sight { at, interface } in sights {
        match places.last_mut() {
            Some((last, interfaces)) if last == at => interfaces.push(interface),
            _ => places.push((at, vec![interface])),
        }
    }
    let place = |(at, interfaces): &(&str, Vec<&str>)| format!("{} in {at}", interfaces.join(", "));
    places.iter().map(place).collect::<Vec<_>>().join("; ")
}

fn ending(trace: &Trace) -> String {
    let End { at, interface, .. } = &trace.end;
    let at = at.join(", ");
    let on = interface
        .as_ref()
        .map_or_else(String::new, |interface| format!(" on {interface}"));
    let frame = trace.end.frame.as_ref();
    let ttl = frame.and_then(|frame| frame.ttl);
    let with = ttl.map_or_else(String::new, |ttl| format!(" with ttl {ttl}"));
    match trace.end.outcome {
        "delivered" => format!("arrives at {at}{on}{with}"),
        "host" => format!("goes to {at}'s own kernel{on}{with}, which takes it from here"),
        "flooded" => format!("goes to all of them: {at}"),
        "answered" => format!("is answered by {at}'s switch"),
        "consumed" => format!("is for {at}'s switch itself"),
        "unanswered" => "no frame is sent: the sender's question has no answer".to_owned(),
        _ => {
            let death = trace.end.drop.as_ref();
            let why = death.map_or("", |death| death.reason);
            format!("dies at {at}: {why}")
        }
    }
}
