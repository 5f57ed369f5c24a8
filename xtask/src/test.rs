//! `cargo xtask test`: every check of a change, the cheap ones first.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::project::{cargo, run as execute};
use crate::runner::{Runner, build_programs};
use crate::{deny, fetch, rooms, sabotage, unused};

/// Appended to `--help`.
const VARIABLES: &str = "\
Environment variables:
  CHATBOX_CACHE         folder for downloaded programs [default: chatbox in the user's cache folder]
  CHATBOX_MONGOD        mongod to test with [default: the one on PATH, else a download]
  CHATBOX_BINARIES      folder of the programs that end-to-end tests start [default: the build's folder]
  CHATBOX_SEED          seed of a soak test, to repeat a run
  CHATBOX_SOAK_ANSWERS  number of answers in a soak test
  CHATBOX_WRITE_DOCS    set: tests of generated documentation rewrite it instead of comparing it";

/// Which checks to run.
#[derive(Args)]
#[command(after_help = VARIABLES)]
pub(crate) struct Arguments {
    /// Run only this step; may be given several times.
    #[arg(long, value_enum, value_name = "STEP")]
    only: Vec<Step>,
    /// Passed to the test runner, such as the name of a test.
    #[arg(last = true)]
    runner: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// cargo fmt --check
    Format,
    /// imports that break the order of the modules (`cargo xtask rooms`)
    Rooms,
    /// dependencies that no source file names
    Unused,
    /// cargo clippy, warnings denied
    Lint,
    /// cargo doc, warnings denied
    Doc,
    /// licences, banned crates and advisories (cargo-deny)
    Deny,
    /// download mongod and cargo-deny, once
    Fetch,
    /// compile programs and tests
    Build,
    /// unit tests only; part of the step `test`
    Unit,
    /// every test
    Test,
    /// deliberate faults in the services, each of which must make its test fail
    Sabotage,
}

/// The steps of a whole run.
const ALL: [Step; 9] =
    [Step::Format, Step::Rooms, Step::Unused, Step::Lint, Step::Doc, Step::Fetch, Step::Deny, Step::Build, Step::Test];

/// Runs the steps in order; the first that fails ends the run.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let steps = if arguments.only.is_empty() { ALL.to_vec() } else { arguments.only.clone() };
    let mut timings: Vec<(Step, Duration)> = Vec::new();
    for step in steps {
        println!("== {}", step.name());
        let begun = Instant::now();
        let result = step.run(&arguments.runner);
        timings.push((step, begun.elapsed()));
        if let Err(error) = result {
            report(&timings);
            return Err(error.context(format!("{} failed", step.name())));
        }
    }
    report(&timings);
    println!("all checks passed");
    Ok(ExitCode::SUCCESS)
}

fn report(timings: &[(Step, Duration)]) {
    println!("== time");
    for (step, time) in timings {
        println!("{:>8.1} s  {}", time.as_secs_f64(), step.name());
    }
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Rooms => "order of the modules",
            Self::Unused => "unused dependencies",
            Self::Lint => "lints",
            Self::Doc => "rustdoc",
            Self::Deny => "licences, bans, advisories",
            Self::Fetch => "downloads",
            Self::Build => "build",
            Self::Unit => "unit tests",
            Self::Test => "tests",
            Self::Sabotage => "tests of the tests",
        }
    }

    fn run(self, extra: &[String]) -> Result<()> {
        match self {
            Self::Format => execute(cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`"),
            Self::Rooms => rooms::check(),
            Self::Unused => unused::check(),
            Self::Lint => {
                execute(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
            }
            Self::Doc => {
                let doc = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
                execute(cargo().args(doc).env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
            }
            Self::Deny => deny::run(),
            Self::Fetch => {
                println!("{}\n{}", fetch::mongod()?.display(), fetch::cargo_deny()?.display());
                Ok(())
            }
            Self::Build => {
                build_programs()?;
                execute(&mut Runner::find().command(&["--workspace", "--no-run"]))
            }
            Self::Unit => execute(Runner::find().command(&["--workspace", "--lib", "--bins"]).args(extra)),
            Self::Test => {
                let mongod = fetch::mongod()?;
                build_programs()?;
                execute(Runner::find().command(&["--workspace"]).args(extra).env(fetch::MONGOD, mongod))
            }
            Self::Sabotage => sabotage::run(),
        }
    }
}
