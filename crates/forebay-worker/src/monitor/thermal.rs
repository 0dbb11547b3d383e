//! The temperature of a GPU that shares its chip with the processor, from the kernel's thermal
//! zones: on Jetson, NVML may not say it.

use std::path::Path;

use forebay_protocol::TemperatureSource;

const ZONES: &str = "/sys/class/thermal";

/// Temperature in degrees Celsius with its source, or nothing of either.
pub(super) fn of_gpu() -> (Option<u32>, Option<TemperatureSource>) {
    let temperature = hottest_gpu(Path::new(ZONES));
    (temperature, temperature.map(|_| TemperatureSource::ThermalZone))
}

/// The hottest of the zones whose type names a GPU.
fn hottest_gpu(zones: &Path) -> Option<u32> {
    let zones = std::fs::read_dir(zones).ok()?;
    let temperature = |zone: std::io::Result<std::fs::DirEntry>| {
        let zone = zone.ok()?.path();
        let kind = std::fs::read_to_string(zone.join("type")).ok()?;
        if !kind.to_ascii_lowercase().contains("gpu") {
            return None;
        }
        // In thousandths of a degree; a zone that is switched off cannot be read.
        let text = std::fs::read_to_string(zone.join("temp")).ok()?;
        u32::try_from(text.trim().parse::<i64>().ok()? / 1_000).ok()
    };
    zones.filter_map(temperature).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hottest_zone_of_a_gpu_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let zone = |name: &str, kind: &str, temp: &str| {
            let zone = folder.path().join(name);
            std::fs::create_dir_all(&zone).expect("a folder");
            std::fs::write(zone.join("type"), kind).expect("written");
            std::fs::write(zone.join("temp"), temp).expect("written");
        };
        zone("thermal_zone0", "cpu-thermal\n", "91000\n");
        assert_eq!(hottest_gpu(folder.path()), None);
        zone("thermal_zone1", "gpu-thermal\n", "48250\n");
        zone("thermal_zone2", "GPU-therm\n", "nonsense");
        zone("thermal_zone3", "gpu1-thermal\n", "-256000\n");
        assert_eq!(hottest_gpu(folder.path()), Some(48));
        assert_eq!(hottest_gpu(&folder.path().join("none")), None);
    }
}
