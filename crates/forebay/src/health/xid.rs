//! What the driver's errors (Xids) ask for, after the immediate actions in NVIDIA's Xid catalogue
//! (<https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html>), whose devices are those
//! of data centres. The device's own recovery action decides where it is known; this table stands
//! in for it.

/// What an Xid asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum XidClass {
    /// Nothing for us: clean-up after another error, a repair that has worked, or a number that is
    /// not in the catalogue.
    Note,
    /// Restart the process that met it; the device is fine.
    Restart,
    /// A link to other GPUs is at fault, which this runtime does not use.
    Link,
    /// Reset the device.
    Reset,
    /// Reboot the machine, or restart the virtual one.
    Reboot,
}

/// The class of an Xid.
#[must_use]
pub const fn class_of(xid: u64) -> XidClass {
    match xid {
        // Engine exception, page fault, pushbuffer, copy engines, contained memory error.
        13 | 31 | 32 | 39..=41 | 94 => XidClass::Restart,
        // Fallen off the bus; key rotation of a virtual machine.
        79 | 151 => XidClass::Reboot,
        // Double-bit errors first, which the catalogue leaves to the recovery action: without one
        // known, the device may still hold the damage.
        48 | 171 | 172 | 46 | 62 | 64 | 95 | 109 | 110 | 119 | 120 | 140 | 143 | 155 | 156
        | 158 => XidClass::Reset,
        74 | 144..=150 => XidClass::Link,
        // 43 and 45 follow another error, 63 and 92 count repairs, 154 says that the recovery
        // action has changed, which is read anyway.
        _ => XidClass::Note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_are_those_of_the_catalogue() {
        for (class, xids) in [
            (XidClass::Restart, &[13, 31, 32, 39, 40, 41, 94][..]),
            (XidClass::Reset, &[46, 48, 62, 64, 95, 109, 110, 119, 120, 140, 143, 155, 156, 158]),
            (XidClass::Link, &[74, 144, 150]),
            (XidClass::Reboot, &[79, 151]),
            (XidClass::Note, &[0, 43, 45, 63, 92, 154, 999, u64::MAX]),
        ] {
            for xid in xids {
                assert_eq!(class_of(*xid), class, "{xid}");
            }
        }
        assert!(XidClass::Reboot > XidClass::Reset && XidClass::Reset > XidClass::Restart);
    }
}
