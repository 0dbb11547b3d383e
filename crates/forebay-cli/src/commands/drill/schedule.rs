//! What is injected when, as far as it can be known beforehand: which fault on which devices, in
//! which order. Pure.

use std::str::FromStr;
use std::time::Duration;

use forebay::Fault;
use forebay::config::Device;

/// Where faults are injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// On this device, each time.
    One(Device),
    /// On all devices at once.
    All,
    /// On one device after the other.
    Alternating,
}

impl FromStr for On {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "alternating" => Ok(Self::Alternating),
            device => device
                .parse()
                .map(Self::One)
                .map_err(|_| format!("`{device}` is no device, and not `all` or `alternating`")),
        }
    }
}

/// One injection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) fault: Fault,
    /// Where; empty for a fault of no device.
    pub(super) devices: Vec<Device>,
}

impl Step {
    /// The devices in one word.
    pub(super) fn on(&self) -> String {
        if self.devices.is_empty() {
            return "host".to_owned();
        }
        let names: Vec<String> = self.devices.iter().map(Device::to_string).collect();
        names.join("+")
    }

    /// What has to follow for the fault to show: one of a start needs a start.
    pub(super) fn follow_up(&self) -> Option<Fault> {
        matches!(self.fault, Fault::FailStarts(_)).then_some(Fault::Kill)
    }
}

/// One round: each fault on each place. `devices` are those that may be meant, the best tier's.
pub(super) fn round(faults: &[Fault], on: On, devices: &[Device]) -> Vec<Step> {
    let places: Vec<Vec<Device>> = match on {
        On::One(device) => vec![vec![device]],
        On::All => vec![devices.to_vec()],
        On::Alternating => devices.iter().map(|device| vec![*device]).collect(),
    };
    let step = |fault: Fault, place: &Vec<Device>| Step {
        fault,
        devices: if fault.is_of_device() { place.clone() } else { Vec::new() },
    };
    let mut steps: Vec<Step> = faults
        .iter()
        .flat_map(|fault| places.iter().map(move |place| step(*fault, place)))
        .collect();
    // A fault of no device once is enough.
    steps.dedup_by(|one, other| one.devices.is_empty() && one == other);
    steps
}

/// `90s`, `5m`, `1h` or `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let ms_each = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a number with ms, s, m or h is expected, such as 90s".to_owned()),
    };
    let longest = Duration::from_hours(1000);
    let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(ms_each));
    ms.map(Duration::from_millis)
        .filter(|duration| *duration <= longest)
        .ok_or_else(|| "a time of at most 1000h is expected".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GPUS: [Device; 2] = [Device::Cuda(0), Device::Cuda(1)];

    #[test]
    fn a_round_goes_through_every_fault_and_place() {
        let text = |on| {
            let steps = round(&[Fault::Kill, Fault::Stop], on, &GPUS);
            let words = steps.iter().map(|step| format!("{} {}", step.fault, step.on()));
            words.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(text(On::One(Device::Cuda(1))), "kill cuda:1, stop cuda:1");
        assert_eq!(text(On::All), "kill cuda:0+cuda:1, stop cuda:0+cuda:1");
        assert_eq!(text(On::Alternating), "kill cuda:0, kill cuda:1, stop cuda:0, stop cuda:1");
    }

    #[test]
    fn what_concerns_no_device_comes_once_and_is_taken_back() {
        let steps = round(&[Fault::LogDiskFull(true), Fault::Kill], On::Alternating, &GPUS);
        assert_eq!(steps.len(), 3);
        assert_eq!(
            (steps[0].on().as_str(), steps[0].fault.undo()),
            ("host", Some(Fault::LogDiskFull(false)))
        );
        assert_eq!(steps[1].fault.undo(), None);
        assert!(steps[1].fault.shows() && !steps[0].fault.shows());
        let slow = Step { fault: Fault::Slow(10), devices: vec![Device::Cpu] };
        assert_eq!((slow.fault.undo(), slow.follow_up()), (Some(Fault::Slow(1)), None));
        let fault = Fault::FailStarts(2);
        let starts = Step { fault, devices: vec![Device::Cpu] };
        assert_eq!((starts.fault.undo(), starts.follow_up()), (None, Some(Fault::Kill)));
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["5", "m", "5 m", "-1s", "1.5s", "99999999999999999999h", "1001h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!("cuda:1".parse(), Ok(On::One(Device::Cuda(1))));
        assert_eq!("all".parse(), Ok(On::All));
        assert!("some".parse::<On>().is_err());
    }
}
