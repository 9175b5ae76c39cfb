//! Random packets and random transfers: the checks of the fuzz targets.

use super::link::Dice;

#[path = "../fuzz/checks/tftp.rs"]
mod checks;

#[test]
fn any_octets_are_a_packet_or_not() {
    let mut dice = Dice(11);
    let parts: [&[u8]; 12] = [
        b"\0\x01",
        b"\0\x02",
        b"f\0",
        b"../",
        b"octet\0",
        b"netascii\0",
        b"blksize\0",
        b"WINDOWSIZE\0",
        b"tsize\0",
        b"99999\0",
        b"1428\0",
        b"\xff\0",
    ];
    for _ in 0..100_000 {
        let mut octets = Vec::new();
        for _ in 0..dice.roll() % 12 {
            octets.extend_from_slice(parts[usize::try_from(dice.roll() % 12).unwrap()]);
        }
        if dice.percent(30) && !octets.is_empty() {
            let at = usize::try_from(dice.roll()).unwrap() % octets.len();
            octets[at] = dice.roll().to_le_bytes()[0];
        }
        checks::packet(&octets);
    }
}

#[test]
fn whatever_happens_a_transfer_ends() {
    let mut dice = Dice(12);
    for _ in 0..100_000 {
        let length = 3 + 4 * (dice.roll() % 30);
        let octets: Vec<u8> = (0..length).map(|_| dice.roll().to_le_bytes()[0]).collect();
        checks::transfer(&octets);
    }
}
