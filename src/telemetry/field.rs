//! Values of log fields, written without the formatting machinery: a line has more than a dozen of them.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A decimal number.
pub(super) fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Whole milliseconds, as %DURATION% has them.
pub(super) fn milliseconds(duration: Duration, out: &mut Vec<u8>) {
    number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), out);
}

/// `192.0.2.1:443`, `[2001:db8::1]:443`.
pub(super) fn address(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(address) = address else {
        // Writing to a vector cannot fail.
        let _ = write!(out, "{address}");
        return;
    };
    octets(*address.ip(), out);
    out.push(b':');
    number(u64::from(address.port()), out);
}

/// `192.0.2.1`, `2001:db8::1`.
pub(super) fn ip(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => octets(address, out),
        // Writing to a vector cannot fail.
        IpAddr::V6(address) => drop(write!(out, "{address}")),
    }
}

fn octets(address: Ipv4Addr, out: &mut Vec<u8>) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        number(u64::from(octet), out);
    }
}

/// `2026-03-01T08:15:30.042Z` (ISO 8601, UTC, milliseconds), as %START_TIME% has it. A clock before 1970 shows as 1970.
pub(super) fn time(time: SystemTime, out: &mut Vec<u8>) {
    let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let second = seconds % 86_400;
    number(year, out);
    digits(b'-', month, out);
    digits(b'-', day, out);
    digits(b'T', second / 3_600, out);
    digits(b':', second / 60 % 60, out);
    digits(b':', second % 60, out);
    let millisecond = u64::from(since_epoch.subsec_millis());
    digits(b'.', millisecond / 10, out);
    out.extend_from_slice(&[digit(millisecond % 10), b'Z']);
}

fn digits(separator: u8, value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[separator, digit(value / 10), digit(value % 10)]);
}

fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

/// Year, month and day of a day counted from 1970-01-01 in the Gregorian calendar. Years begin in March here, so that
/// the leap day is the last of a year and month lengths follow from one linear formula.
fn civil(day: u64) -> (u64, u64, u64) {
    const DAYS_BEFORE_1970: u64 = 719_468; // From 0000-03-01.
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let day = day + DAYS_BEFORE_1970;
    let (era, day) = (day / DAYS_OF_400_YEARS, day % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, january_or_february) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + january_or_february, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(time_since_epoch: Duration) -> String {
        let mut out = Vec::new();
        time(UNIX_EPOCH + time_since_epoch, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_iso_8601_in_utc_with_milliseconds() {
        assert_eq!(shown(Duration::ZERO), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(Duration::from_millis(951_782_399_999)), "2000-02-28T23:59:59.999Z");
        assert_eq!(shown(Duration::from_millis(951_782_400_007)), "2000-02-29T00:00:00.007Z");
        assert_eq!(shown(Duration::from_secs(4_107_542_400)), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn dates_agree_with_the_calendar_library_over_two_centuries() {
        for day in (0..73_000).step_by(13) {
            let expected = jiff::Timestamp::from_second(day * 86_400).unwrap().to_string();
            assert_eq!(shown(Duration::from_secs(day as u64 * 86_400)).replace(".000", ""), expected);
        }
    }

    #[test]
    fn a_clock_before_the_epoch_does_not_panic() {
        let mut out = Vec::new();
        time(UNIX_EPOCH - Duration::from_secs(1), &mut out);
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn addresses_of_both_families_show_as_the_standard_library_shows_them() {
        for text in ["192.0.2.1:443", "255.255.255.255:65535", "[2001:db8::1]:443", "0.0.0.0:0"] {
            let mut out = Vec::new();
            address(text.parse().unwrap(), &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
