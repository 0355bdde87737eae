//! `tapline completions` and `tapline man`: what shells and `man` know of the command line.
//!
//! In: the command line's own definition. Out: a script on standard output, pages in a folder.
//! Never: says what the definition does not.

use std::io;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit};

/// Arguments of `tapline completions`.
#[derive(clap::Args, Debug)]
pub struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

/// Arguments of `tapline man`.
#[derive(clap::Args, Debug)]
pub struct ManArgs {
    /// The folder for the pages, which is made if it is not there.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Prints a completion script.
#[must_use]
pub fn completions(args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tapline", &mut script);
    // A reader that has gone away wants no more of it.
    let _ = io::Write::write_all(&mut io::stdout().lock(), &script);
    Exit::Ok
}

/// Writes a page for the program and one for each of its commands.
#[must_use]
pub fn man(args: &ManArgs) -> Exit {
    let written = std::fs::create_dir_all(&args.out)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.out));
    match written {
        Ok(()) => Exit::Ok,
        Err(why) => {
            eprintln!("{}: {why}", args.out.display());
            Exit::BadInput
        }
    }
}
