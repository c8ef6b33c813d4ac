<?php
// The scenario in PHP with SoapClient.

// docs: begin
$url = getenv('CDB_SERVER');
$options = ['features' => SOAP_SINGLE_ELEMENT_ARRAYS, 'cache_wsdl' => WSDL_CACHE_NONE];
$access = ['login' => getenv('CDB_USER'), 'password' => getenv('CDB_TOKEN')];
$reader = new SoapClient("$url/cdb/v2/calibration?wsdl", $options);
$writer = new SoapClient("$url/cdb/v2/calibrationSuperMouse?wsdl", $options + $access);

/** Store bytes, to apply from a time like '2016-03-01T08:00:00.123456Z' on. */
function store(string $device, string $type, string $validFrom, string $data): object
{
    global $writer;
    return $writer->add_calibration([
        'device_name' => $device,
        'calibration_type' => $type,
        'valid_from' => $validFrom,
        'data' => $data,
        'sha256' => hash('sha256', $data),  // the server checks it; an empty payload needs it
        'comment' => 'from PHP',
    ])->calibration;
}

/** The bytes, checked, of an answer such as $reader->get_calibration_for_run([...])->calibration. */
function payload_of(object $calibration): string
{
    if (hash('sha256', $calibration->data) !== $calibration->sha256) {
        throw new RuntimeException("calibration $calibration->id was damaged on its way");
    }
    return $calibration->data;
}

/** The name of a fault, like CalibrationNotFound, and the fields of its detail. */
function explain(SoapFault $fault): array
{
    $name = array_key_first((array) $fault->detail);
    return [$name, (array) $fault->detail->$name];
}
// docs: end

const VALID_FROM = '2016-01-01T00:00:00.000000Z';
const RUN_START = '2016-02-01T12:00:00.000001Z';
const RUN_STOP = '2016-02-01T13:00:00.000000Z';
const BEFORE_PRECISE = '2016-03-01T08:00:00.123455Z';
const PRECISE = '2016-03-01T08:00:00.123456Z';
const AFTER_PRECISE = '2016-03-01T08:00:00.123457Z';
const BEFORE_OFFSET = '2016-03-01T12:00:00.000000+02:00';
const OFFSET = '2016-03-01T12:00:00.000001+02:00';
const OFFSET_IN_UTC = '2016-03-01T10:00:00.000001Z';
const WITHOUT_OFFSET = '2016-03-01T10:00:00.000001';

$device = getenv('INTEROP_DEVICE');
$run = (int) getenv('INTEROP_RUN');
$files = [];
foreach (['binary', 'megabyte', 'empty'] as $name) {
    $files[$name] = file_get_contents(getenv('INTEROP_PAYLOADS') . "/$name");
}
$ids = [];

/** Do one step of the scenario and print what came of it. */
function step(string $name, callable $work): void
{
    try {
        $work();
        echo "ok $name\n";
    } catch (Throwable $error) {
        echo "not ok $name: " . str_replace("\n", ' ', get_class($error) . ': ' . $error->getMessage()) . "\n";
    }
}

function expect(mixed $found, mixed $wanted): void
{
    if ($found !== $wanted) {
        throw new RuntimeException(json_encode($found) . ' instead of ' . json_encode($wanted));
    }
}

/** Store a file under a label, or again under the same one. */
function add(string $label, string $type, string $file, string $validFrom, string $answered): void
{
    global $device, $files, $ids;
    $stored = store($device, $type, $validFrom, $files[$file]);
    expect([$stored->device_name, $stored->valid_from, $stored->size], [$device, $answered, strlen($files[$file])]);
    $ids[$label] ??= $stored->id;
    expect($stored->id, $ids[$label]);
}

function same(string $file, object $calibration): void
{
    global $files, $ids;
    expect($calibration->id, $ids[$file]);
    expect(payload_of($calibration) === $files[$file], true);
}

function for_date(string $type, string $date): object
{
    global $reader, $device;
    $question = ['device_name' => $device, 'calibration_type' => $type, 'date' => $date];
    return $reader->get_calibration_for_date($question)->calibration;
}

function for_id(string $label): object
{
    global $reader, $ids;
    return $reader->get_calibration_for_id(['id' => $ids[$label]])->calibration;
}

function applies(string $label, string $date, string $answered): void
{
    global $ids;
    $calibration = for_date('instants', $date);
    expect([$calibration->id, $calibration->valid_from], [$ids[$label], $answered]);
}

function listed(array $labels, array $period): void
{
    global $reader, $device, $ids;
    $own = [];
    foreach ($reader->get_ids($period)->calibration ?? [] as $calibration) {
        if ($calibration->device_name === $device) {
            $own[] = $calibration->id;
            expect(isset($calibration->data), false);
        }
    }
    expect($own, array_map(fn($label) => $ids[$label], $labels));
}

/** A question must end with this fault, its detail with these fields. */
function fault(string $name, array $fields, callable $ask): void
{
    try {
        $answer = $ask();
    } catch (SoapFault $error) {
        expect(isset($error->detail), true);
        [$found, $detail] = explain($error);
        expect([$found, array_intersect_key($detail, $fields)], [$name, $fields]);
        expect(strlen($detail['message']) > 20, true);
        return;
    }
    throw new RuntimeException('no fault, but ' . substr(json_encode($answer), 0, 200));
}

step('wsdl', function () use ($reader) {
    $reader->get_ids(['start_time' => VALID_FROM]);
    expect($reader->get_status()->status->status, 'OK');
});
foreach (array_keys($files) as $name) {
    step("upload-$name", fn() => add($name, $name, $name, VALID_FROM, VALID_FROM));
}
step('upload-again', fn() => add('binary', 'binary', 'binary', VALID_FROM, VALID_FROM));
step('add-run', function () use ($writer, $run) {
    $times = ['run_number' => $run, 'start_time' => RUN_START, 'stop_time' => RUN_STOP];
    expect(array_intersect_key((array) $writer->add_run($times)->run, $times), $times);
});
foreach (array_keys($files) as $name) {
    $key = ['device_name' => $device, 'calibration_type' => $name];
    $at_run = $key + ['run_number' => $run];
    step("get-for-run-$name", fn() => same($name, $reader->get_calibration_for_run($at_run)->calibration));
    step("get-for-date-$name", fn() => same($name, for_date($name, VALID_FROM)));
    step("get-current-$name", fn() => same($name, $reader->get_current_calibration($key)->calibration));
    step("get-for-id-$name", fn() => same($name, for_id($name)));
}
step('upload-microseconds', fn() => add('precise', 'instants', 'binary', PRECISE, PRECISE));
step('microsecond-before', fn() => fault('CalibrationNotFound', [], fn() => for_date('instants', BEFORE_PRECISE)));
step('microsecond-at', fn() => applies('precise', PRECISE, PRECISE));
step('microsecond-after', fn() => applies('precise', AFTER_PRECISE, PRECISE));
step('upload-offset', fn() => add('offset', 'instants', 'binary', OFFSET, OFFSET_IN_UTC));
step('offset-before', fn() => applies('precise', BEFORE_OFFSET, PRECISE));
step('offset-at', fn() => applies('offset', OFFSET, OFFSET_IN_UTC));
step('no-offset', fn() => applies('offset', WITHOUT_OFFSET, OFFSET_IN_UTC));
step('valid-until', function () {
    expect(for_id('precise')->valid_until, OFFSET_IN_UTC);
    expect(isset(for_id('offset')->valid_until), false);
});
step('get-ids', fn() => listed(['binary', 'megabyte', 'empty', 'precise'], ['start_time' => BEFORE_OFFSET]));
step('get-ids-period', fn() => listed(
    ['binary', 'megabyte', 'empty', 'precise', 'offset'],
    ['start_time' => RUN_START, 'stop_time' => OFFSET],
));
step('list-devices', function () use ($reader, $device) {
    $own = array_filter($reader->list_devices()->device, fn($each) => $each->device_name === $device);
    expect(current($own)->calibration_type, ['binary', 'empty', 'instants', 'megabyte']);
});
step('as-of', fn() => fault('CalibrationNotFound', [], fn() => $reader->get_current_calibration(
    ['device_name' => $device, 'calibration_type' => 'binary', 'as_of' => VALID_FROM],
)));
step('journal', function () use ($reader, $device) {
    global $ids, $files;
    [$entry] = $reader->get_journal(['after_serial' => $ids['binary'] - 1, 'limit' => 1])->entry;
    expect([$entry->serial, $entry->kind, $entry->device_name], [$ids['binary'], 'calibration', $device]);
    expect([$entry->size, isset($entry->reason)], [strlen($files['binary']), false]);
});
step('preview', function () use ($writer, $device, $run) {
    global $ids, $files;
    $upload = ['device_name' => $device, 'calibration_type' => 'binary', 'valid_from' => RUN_START, 'data' => 'new'];
    $told = $writer->preview_calibration($upload)->preview;
    expect([isset($told->stored_id), $told->device_is_new], [false, false]);
    expect($told->takes_over_from->id, $ids['binary']);
    $own = array_filter($told->run_range, fn($each) => $each->first_run === $run && $each->last_run === $run);
    expect(count($own), 1);
    $known = ['valid_from' => VALID_FROM, 'data' => $files['binary']] + $upload;
    expect($writer->preview_calibration($known)->preview->stored_id, $ids['binary']);
});
step('withdraw', function () use ($writer) {
    global $ids;
    $withdrawn = $writer->withdraw_calibration(['id' => $ids['offset'], 'reason' => 'only a test'])->calibration;
    expect([$withdrawn->withdrawn, $withdrawn->withdrawn_reason], [true, 'only a test']);
    applies('precise', OFFSET, PRECISE);
});
$missing = ['device_name' => $device, 'calibration_type' => 'missing'];
step('fault-calibration-not-found', fn() => fault(
    'CalibrationNotFound',
    $missing,
    fn() => $reader->get_current_calibration($missing),
));
step('fault-invalid-argument', fn() => fault(
    'InvalidArgument',
    ['argument' => 'stop_time'],
    fn() => $reader->get_ids(['start_time' => PRECISE, 'stop_time' => VALID_FROM]),
));
step('fault-run-not-found', fn() => fault(
    'RunNotFound',
    ['run_number' => (string) ($run + 1)],
    fn() => $reader->get_calibration_for_run(
        ['device_name' => $device, 'calibration_type' => 'binary', 'run_number' => $run + 1],
    ),
));
step('no-token', function () use ($url, $options, $run) {
    $nobody = new SoapClient("$url/cdb/v2/calibrationSuperMouse?wsdl", $options + ['trace' => true]);
    try {
        $nobody->add_run(['run_number' => $run, 'start_time' => RUN_START]);
        throw new RuntimeException('written without a token');
    } catch (SoapFault $error) {
        expect([$error->faultcode, $error->getMessage()], ['HTTP', 'Unauthorized']);
        expect(str_starts_with($nobody->__getLastResponseHeaders(), 'HTTP/1.1 401 '), true);
    }
});

// What SoapClient cannot do: see the table in the test.
step('own-time-type', fn() => $reader->get_ids(['start_time' => new DateTime(VALID_FROM)]));
