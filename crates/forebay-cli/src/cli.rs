//! The command line: what can be asked for.

use clap::{Parser, Subcommand};

use crate::commands::bench::BenchCommand;
use crate::commands::bundle::BundleArgs;
use crate::commands::config::ConfigCommand;
use crate::commands::demo::DemoArgs;
use crate::commands::doctor::DoctorArgs;
use crate::commands::drill::DrillArgs;
use crate::commands::embed::EmbedArgs;
use crate::commands::eval::EvalCommand;
use crate::commands::events::EventsArgs;
use crate::commands::explain::ExplainArgs;
use crate::commands::ready::ReadyArgs;
use crate::commands::selftest::SelftestArgs;
use crate::commands::serve::ServeArgs;
use crate::commands::soak::SoakArgs;
use crate::commands::top::TopArgs;
use crate::settings::Settings;

/// Text in, embeddings out, by worker processes that are watched and replaced
///
/// To embed, the program loads no inference library itself: it starts a worker process that does,
/// feeds it through shared memory, and starts another one if it fails. Settings come from, in rising
/// order of precedence: defaults, a configuration file, the environment (FOREBAY_GROUP__KEY),
/// and the options here. Start with `forebay doctor`.
#[derive(Parser, Debug)]
#[command(
    name = "forebay",
    version,
    after_long_help = "\
Examples:
  forebay doctor
  forebay embed --input lines.txt --output lines.npy
  forebay serve --listen 127.0.0.1:8080
  forebay bench pipeline --input lines.txt
  forebay selftest --device cuda:0

Exit codes:
  0    done
  1    the work failed, or doctor found something broken
  2-5  a soak test did not pass; `forebay soak --help` says how
  64   the command line is wrong
  65   input data is not what it should be
  66   an input is missing or unreadable
  69   something needed is not there: library, worker, device
  73   the output cannot be created
  74   reading or writing failed (also: the reader of standard output has gone)
  78   the configuration is wrong
  130  interrupted (SIGINT)
  143  asked to terminate (SIGTERM)"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Options of every command.
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What the program does.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Embed(EmbedArgs),
    Serve(ServeArgs),
    Ready(ReadyArgs),
    Top(TopArgs),
    #[command(subcommand)]
    Bench(BenchCommand),
    #[command(subcommand)]
    Eval(EvalCommand),
    Demo(DemoArgs),
    Doctor(DoctorArgs),
    Bundle(BundleArgs),
    Selftest(SelftestArgs),
    Events(EventsArgs),
    Explain(ExplainArgs),
    Drill(DrillArgs),
    Soak(SoakArgs),
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Serve as worker; only Forebay starts this
    #[command(hide = true)]
    Worker,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use forebay::config::{CudaPrecision, Fallback, Precision};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_every_command_may_stand_after_it() {
        let line = ["forebay", "doctor", "--precision", "int8", "--device", "cuda:0,cpu"];
        assert!(Cli::try_parse_from(line).is_ok());
        for wrong in [["--precision", "f64"], ["--device", "gpu"], ["--log-level", "loud"]] {
            assert!(Cli::try_parse_from(["forebay", "doctor"].into_iter().chain(wrong)).is_err());
        }
    }

    #[test]
    fn a_list_of_devices_is_all_there_is_and_precision_finds_its_device() {
        let config = |options: &[&str]| {
            let line = ["forebay", "doctor"].iter().chain(options);
            let cli = Cli::try_parse_from(line).expect("parses");
            cli.settings.config().unwrap_or_else(|failure| panic!("{}", failure.message))
        };
        let defaults = config(&[]);
        let auto = config(&["--device", "auto"]);
        assert_eq!(auto.devices, defaults.devices);
        let listed = config(&["--device", "cuda:1,cuda:0"]);
        assert_eq!(listed.devices.rungs, "cuda:1,cuda:0".parse().expect("devices"));
        assert_eq!(listed.devices.fallback, Fallback::None);
        let both = config(&["--precision", "bf16,int8"]);
        assert_eq!(both.cuda.precision, CudaPrecision::Bf16);
        assert_eq!(both.model.precision, Precision::Int8);
        let one = config(&["--precision", "f16"]);
        assert_eq!(one.cuda.precision, CudaPrecision::F16);
        assert_eq!(one.model.precision, defaults.model.precision);
    }
}
