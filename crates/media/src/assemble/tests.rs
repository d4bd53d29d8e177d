use super::*;

fn part(number: u64, segment_start: bool) -> Part {
    Part {
        number,
        segment_start,
        discontinuity: false,
        capture_unix_us: 1000 * number,
        duration_us: 200_000,
        init: segment_start.then(|| Bytes::from_static(b"init")),
        media: Bytes::from(vec![number as u8; 50]),
    }
}

/// The chunks of a part, of at most 20 bytes.
fn chunks(part: &Part) -> Vec<ChunkIn> {
    let payload = part.to_payload();
    let pieces: Vec<Bytes> = payload.chunks(20).map(Bytes::copy_from_slice).collect();
    let count = pieces.len() as u16;
    let chunk = |(index, payload)| ChunkIn {
        part: part.number,
        index: index as u16,
        count,
        segment_start: part.segment_start,
        discontinuity: part.discontinuity,
        capture_unix_us: part.capture_unix_us,
        payload,
    };
    pieces.into_iter().enumerate().map(chunk).collect()
}

fn push(assembler: &mut Assembler, part: &Part) {
    for chunk in chunks(part) {
        assembler.push(chunk).unwrap();
    }
}

/// `5` for part 5, `-5` for one marked as a discontinuity, gaps as a pair.
fn drain(assembler: &mut Assembler) -> Vec<String> {
    std::iter::from_fn(|| assembler.poll())
        .map(|output| match output {
            AssemblerOutput::Part(p) => format!("{}{}", if p.discontinuity { "!" } else { "" }, p.number),
            AssemblerOutput::Gap { from, to } => format!("gap {from}..{to}"),
        })
        .collect()
}

#[test]
fn any_order_and_duplicates_give_every_part_once_in_order() {
    let parts: Vec<Part> = (0..6).map(|n| part(n, n % 3 == 0)).collect();
    let mut all: Vec<ChunkIn> = parts.iter().flat_map(chunks).collect();
    all.reverse();
    let mut assembler = Assembler::start_at(0);
    let mut got = Vec::new();
    for chunk in all.iter().chain(&all) {
        assembler.push(chunk.clone()).unwrap();
        got.extend(std::iter::from_fn(|| assembler.poll()));
    }
    assert_eq!(got, parts.into_iter().map(AssemblerOutput::Part).collect::<Vec<_>>());
    assert_eq!(assembler.held_bytes(), 0);
}

#[test]
fn joining_in_the_middle_of_a_segment_starts_at_the_next_without_a_gap() {
    let mut assembler = Assembler::start_at(1);
    for n in 1..5 {
        push(&mut assembler, &part(n, n == 3));
    }
    assert_eq!(drain(&mut assembler), ["3", "4"]);
}

#[test]
fn a_hole_waits_until_given_up_and_resumes_at_a_segment_start() {
    let mut assembler = Assembler::start_at(0);
    for n in [0, 1, 3, 4, 5, 6, 7] {
        push(&mut assembler, &part(n, n == 0 || n == 5));
    }
    assert_eq!(drain(&mut assembler), ["0", "1"]);
    assert_eq!(assembler.next_part(), 2);
    assembler.give_up_before(3);
    assert_eq!(drain(&mut assembler), ["gap 2..5", "!5", "6", "7"]);
    push(&mut assembler, &part(2, false));
    assert_eq!(drain(&mut assembler), Vec::<String>::new(), "late chunks are ignored");
    push(&mut assembler, &part(8, true));
    assert_eq!(drain(&mut assembler), ["8"]);
}

#[test]
fn giving_up_keeps_a_segment_that_is_whole_up_to_the_deadline() {
    let mut assembler = Assembler::start_at(0);
    for n in [0, 2, 3, 4] {
        push(&mut assembler, &part(n, n == 0 || n == 2));
    }
    assert_eq!(drain(&mut assembler), ["0"]);
    assembler.give_up_before(4);
    assert_eq!(drain(&mut assembler), ["gap 1..2", "!2", "3", "4"]);
}

#[test]
fn skipping_waits_for_a_segment_start_that_is_not_here_yet() {
    let mut assembler = Assembler::start_at(0);
    for n in [0, 2, 3] {
        push(&mut assembler, &part(n, n == 0));
    }
    assert_eq!(drain(&mut assembler), ["0"]);
    assembler.skip_to_next_segment();
    assert_eq!(drain(&mut assembler), Vec::<String>::new());
    // A first chunk of a segment start is enough to know where to go, but not to go.
    let next = part(4, true);
    assembler.push(chunks(&next).remove(0)).unwrap();
    assert_eq!(drain(&mut assembler), Vec::<String>::new());
    push(&mut assembler, &next);
    assert_eq!(drain(&mut assembler), ["gap 1..4", "!4"]);
    assert_eq!(assembler.held_bytes(), 0);
}

#[test]
fn a_new_epoch_starts_again_and_is_marked() {
    let mut assembler = Assembler::start_at(40);
    push(&mut assembler, &part(40, true));
    assert_eq!(drain(&mut assembler), ["40"]);
    assembler.reset(0);
    push(&mut assembler, &part(0, true));
    push(&mut assembler, &part(1, false));
    assert_eq!(drain(&mut assembler), ["!0", "1"]);
}

#[test]
fn contradictions_and_excess_are_errors_that_change_nothing() {
    let mut assembler = Assembler::start_at(0);
    let good = chunks(&part(0, true));
    assembler.push(good[0].clone()).unwrap();
    let other_count = ChunkIn { count: 9, index: 8, ..good[0].clone() };
    assert_eq!(assembler.push(other_count), Err(AssembleError::Inconsistent(0)));
    let other_flag = ChunkIn { segment_start: false, ..good[1].clone() };
    assert_eq!(assembler.push(other_flag), Err(AssembleError::Inconsistent(0)));
    let no_index = ChunkIn { index: 3, count: 3, ..good[0].clone() };
    assert!(matches!(assembler.push(no_index), Err(AssembleError::BadIndex { .. })));
    let far = ChunkIn { part: PARTS_AHEAD_MAX, ..good[0].clone() };
    assert!(matches!(assembler.push(far), Err(AssembleError::TooFar { .. })));
    let huge = Bytes::from(vec![0; PART_LEN_MAX]);
    let long = ChunkIn { index: 1, payload: huge, ..good[0].clone() };
    assert_eq!(assembler.push(long), Err(AssembleError::TooLong(0)));
    good.into_iter().for_each(|chunk| assembler.push(chunk).unwrap());
    assert_eq!(drain(&mut assembler), ["0"]);
}

#[test]
fn a_part_that_is_no_part_counts_as_missing() {
    let mut assembler = Assembler::start_at(0);
    push(&mut assembler, &part(0, true));
    let broken = ChunkIn {
        part: 1,
        index: 0,
        count: 1,
        segment_start: false,
        discontinuity: false,
        capture_unix_us: 0,
        payload: Bytes::from_static(b"nonsense that is no envelope"),
    };
    assert!(matches!(assembler.push(broken.clone()), Err(AssembleError::Envelope { part: 1, .. })));
    assembler.push(broken).unwrap();
    push(&mut assembler, &part(2, true));
    assert_eq!(drain(&mut assembler), ["0"]);
    assembler.skip_to_next_segment();
    assert_eq!(drain(&mut assembler), ["gap 1..2", "!2"]);
    assert_eq!(assembler.held_bytes(), 0);
}

#[test]
fn what_may_be_held_is_limited() {
    let mut assembler = Assembler::start_at(0);
    let payload = Bytes::from(vec![0; 4 << 20]);
    let mut refused = 0;
    for n in 1..100 {
        let chunk =
            ChunkIn { part: n, count: 2, payload: payload.clone(), ..chunks(&part(0, true)).remove(0) };
        refused += u32::from(assembler.push(chunk).is_err());
    }
    assert!(assembler.held_bytes() <= HELD_BYTES_MAX);
    assert!(refused > 0);
}

#[test]
fn a_stream_repeats_init_data_only_when_it_changes() {
    let mut writer = StreamWriter::new();
    let mut stream = Vec::new();
    let mut changed = part(4, true);
    changed.init = Some(Bytes::from_static(b"other"));
    for p in [part(0, false), part(1, true), part(2, false), part(3, true), changed] {
        stream.extend(writer.write(&p));
    }
    let expected: Vec<Bytes> = [&b"init"[..], &[1; 50], &[2; 50], &[3; 50], b"other", &[4; 50]]
        .into_iter()
        .map(Bytes::copy_from_slice)
        .collect();
    assert_eq!(stream, expected);
}
