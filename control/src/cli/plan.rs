//! `tapline plan`.

/// Arguments of `tapline plan`.
#[derive(clap::Args, Debug)]
pub struct PlanArgs {}

/// Runs `tapline plan`.
#[must_use]
pub fn run(_args: &PlanArgs) -> super::Exit {
    super::Exit::Ok
}
