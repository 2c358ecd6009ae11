//! The facts of X.509 that rustls checks and does not tell: when a certificate ends, which names it carries, and its key
//! (RFC 5280 section 4.1).

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0] EXPLICIT`, which begins a TBSCertificate of any version but the first.
const VERSION: u8 = 0xa0;
/// `[3] EXPLICIT`, which ends it.
const EXTENSIONS: u8 = 0xa3;
/// 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
const MAIL_ADDRESS: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const IP_ADDRESS: u8 = 0x87;

/// `notAfter` of a certificate in DER. `None`: it is none, or ends before 1970.
#[must_use]
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let validity = behind_validity(certificate)?.0;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The SubjectPublicKeyInfo of a certificate in DER, header included: what pins are made of (RFC 7469 section 2.4).
#[must_use]
pub fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let info = behind_validity(certificate)?.1;
    let (tag, _, rest) = element(info)?;
    (tag == SEQUENCE).then(|| &info[..info.len() - rest.len()])
}

/// One name that a certificate carries beside its subject (RFC 5280 section 4.2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AltName<'a> {
    /// A DNS name.
    Dns(&'a [u8]),
    /// A URI, a SPIFFE identity for instance, or a mail address.
    Text(&'a [u8]),
    /// An IP address.
    Ip(IpAddr),
}

impl AltName<'_> {
    /// Whether it is what an operator has written. A wildcard is nothing but itself.
    #[must_use]
    pub fn is(&self, written: &str) -> bool {
        match self {
            Self::Dns(name) => name.eq_ignore_ascii_case(written.as_bytes()),
            Self::Text(text) => *text == written.as_bytes(),
            Self::Ip(address) => written.parse() == Ok(*address),
        }
    }
}

/// The names of a certificate in DER; those of other kinds are left out. `None`: it is none, or says it twice.
#[must_use]
pub fn subject_alt_names(certificate: &[u8]) -> Option<Vec<AltName<'_>>> {
    let info = behind_validity(certificate)?.1;
    let mut rest = element(info)?.2;
    let mut found = None;
    while !rest.is_empty() {
        let (tag, content, behind) = element(rest)?;
        rest = behind;
        if tag != EXTENSIONS {
            continue; // Unique identifiers of issuer and subject.
        }
        let (SEQUENCE, mut extensions, _) = element(content)? else { return None };
        while !extensions.is_empty() {
            let (_, extension, behind) = element(extensions)?;
            extensions = behind;
            let (_, identifier, value) = element(extension)?;
            if identifier != SUBJECT_ALT_NAME {
                continue;
            }
            if found.is_some() {
                return None;
            }
            found = Some(alt_names(value)?);
        }
    }
    Some(found.unwrap_or_default())
}

/// The names in the value of the extension, which a flag may precede.
fn alt_names(value: &[u8]) -> Option<Vec<AltName<'_>>> {
    let (mut tag, mut content, rest) = element(value)?;
    if tag == BOOLEAN {
        (tag, content, _) = element(rest)?;
    }
    let (SEQUENCE, mut rest, _) = element(content)? else { return None };
    if tag != OCTET_STRING {
        return None;
    }
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (tag, content, behind) = element(rest)?;
        rest = behind;
        match tag {
            DNS_NAME => names.push(AltName::Dns(content)),
            MAIL_ADDRESS | URI => names.push(AltName::Text(content)),
            IP_ADDRESS => names.extend(address(content).map(AltName::Ip)),
            _ => {}
        }
    }
    Some(names)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4().or_else(|_| v6()).ok()
}

/// The validity of a certificate, and the fields behind its subject, which follows.
fn behind_validity(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, certificate, _) = element(certificate)?;
    let (tbs_tag, mut fields, _) = element(certificate)?;
    if (tag, tbs_tag) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (SEQUENCE, validity, rest) = element(fields)? else { return None };
    let (_, _, behind_subject) = element(rest)?;
    Some((validity, behind_subject))
}

/// Tag, content and what follows (X.690 section 8.1), of lengths up to 2^32.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |value, byte| value << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from 2050 on (RFC 5280 section 4.1.2.5).
fn time(tag: u8, text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: i64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let part = |index: usize| rest[2 * index..2 * index + 2].parse::<i64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(1)?, part(2)?, part(3)?, part(4)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Days from 1970-01-01 in the Gregorian calendar, with years that begin in March so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let seconds = |tag, text| time(tag, text).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs());
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "240229120000Z"), Some(1_709_208_000));
        assert_eq!(seconds(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        for bad in ["", "2402291200Z", "240229120000", "241329120000Z", "24022912000 Z"] {
            assert_eq!(seconds(UTC_TIME, bad), None, "{bad}");
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_found_and_no_prefix_of_it_is_taken_for_one() {
        let mut parameters = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2031, 5, 6);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let der = certificate.der().to_vec();
        let expected = UNIX_EPOCH + Duration::from_secs(1_935_792_000);
        assert_eq!(not_after(&der), Some(expected));
        for length in 0..der.len() {
            assert_eq!(not_after(&der[..length]), None, "the first {length} bytes");
        }
    }

    #[test]
    fn names_and_key_are_found_and_no_prefix_of_a_certificate_has_any() {
        use rcgen::SanType;
        let mut parameters = rcgen::CertificateParams::new(["a.example".to_owned(), "*.b.example".to_owned()]).unwrap();
        parameters.subject_alt_names.push(SanType::URI("spiffe://c/ns/d".try_into().unwrap()));
        parameters.subject_alt_names.push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
        let key = rcgen::KeyPair::generate().unwrap();
        let der = parameters.self_signed(&key).unwrap().der().to_vec();
        let names = subject_alt_names(&der).unwrap();
        for (written, carried) in [
            ("A.example", true),
            ("*.b.example", true),
            ("x.b.example", false),
            ("spiffe://c/ns/d", true),
            ("spiffe://c/ns/D", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("", false),
        ] {
            assert_eq!(names.iter().any(|name| name.is(written)), carried, "{written}");
        }
        assert_eq!(public_key(&der).unwrap(), rcgen::PublicKeyData::subject_public_key_info(&key));
        for length in 0..der.len() {
            assert_eq!(subject_alt_names(&der[..length]), None, "the first {length} bytes");
            assert_eq!(public_key(&der[..length]), None, "the first {length} bytes");
        }
        let bare = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        assert_eq!(subject_alt_names(bare.der()), Some(Vec::new()));
    }
}
