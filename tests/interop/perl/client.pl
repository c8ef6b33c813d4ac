# The scenario in Perl with SOAP::Lite.

# docs: begin
use strict;
use warnings;
use Digest::SHA 'sha256_hex';
use MIME::Base64;
use SOAP::Lite;

my $url = $ENV{CDB_SERVER};
my $reader = service('calibration');
my $writer = service('calibrationSuperMouse');
$writer->transport->proxy->default_headers->authorization_basic($ENV{CDB_USER}, $ENV{CDB_TOKEN});

# A service by hand, because SOAP::Lite reads this kind of WSDL wrongly.
sub service {
    my ($path) = @_;
    return SOAP::Lite->proxy("$url/cdb/v2/$path")->default_ns('urn:mice:cdb:2')->autotype(0)
        ->on_action(sub { sprintf '"%s#%s"', @_ });
}

# Ask a service. The arguments, by name, must have the order of the WSDL. A fault dies with its detail, like
# {CalibrationNotFound => {message => ..., device_name => ...}}.
sub ask {
    my ($service, $operation, @arguments) = @_;
    my @elements = SOAP::Data->type(xml => '');    # without this, a call without arguments carries xsi:nil
    while (my ($name, $value) = splice @arguments, 0, 2) {
        push @elements, SOAP::Data->name($name => $value)->type('');
    }
    my $answer = $service->call($operation => @elements);
    die $answer->faultdetail if $answer->fault;
    return $answer->paramsall;
}

# Store bytes, to apply from a time like '2016-03-01T08:00:00.123456Z' on. SOAP::Lite leaves base64 to us.
sub store {
    my ($device, $type, $valid_from, $data) = @_;
    my ($calibration) = ask(
        $writer, 'add_calibration',
        device_name => $device,
        calibration_type => $type,
        valid_from => $valid_from,
        data => encode_base64($data),
        sha256 => sha256_hex($data),    # the server checks it; an empty payload needs it
        comment => 'from Perl',
    );
    return $calibration;
}

# The bytes, checked, of an answer such as
# ask($reader, 'get_calibration_for_run', device_name => 'TOF1', calibration_type => 't0', run_number => 7662).
sub payload_of {
    my ($calibration) = @_;
    my $data = decode_base64($calibration->{data});
    sha256_hex($data) eq $calibration->{sha256} or die "calibration $calibration->{id} was damaged on its way\n";
    return $data;
}
# docs: end

use Data::Dumper;
$Data::Dumper::Terse = 1;
$Data::Dumper::Indent = 0;
$Data::Dumper::Sortkeys = 1;

my $VALID_FROM = '2016-01-01T00:00:00.000000Z';
my ($RUN_START, $RUN_STOP) = ('2016-02-01T12:00:00.000001Z', '2016-02-01T13:00:00.000000Z');
my ($BEFORE_PRECISE, $PRECISE, $AFTER_PRECISE) = map { "2016-03-01T08:00:00.12345${_}Z" } 5, 6, 7;
my ($BEFORE_OFFSET, $OFFSET) = map { "2016-03-01T12:00:00.00000$_+02:00" } 0, 1;
my ($OFFSET_IN_UTC, $WITHOUT_OFFSET) = ('2016-03-01T10:00:00.000001Z', '2016-03-01T10:00:00.000001');

my ($DEVICE, $RUN) = ($ENV{INTEROP_DEVICE}, $ENV{INTEROP_RUN});
my @names = ('binary', 'megabyte', 'empty');
my %files = map { $_ => contents("$ENV{INTEROP_PAYLOADS}/$_") } @names;
my %ids;

sub contents {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!\n";
    local $/;
    return scalar(<$file>) // '';
}

# Do one step of the scenario and print what came of it.
sub step {
    my ($name, $work) = @_;
    if (eval { $work->(); 1 }) {
        print "ok $name\n";
    }
    else {
        my $error = ref $@ ? Dumper($@) : $@;
        print "not ok $name: ", $error =~ s/\s+/ /gr, "\n";
    }
}

sub expect {
    my ($found, $wanted) = map { Dumper($_) } @_;
    $found eq $wanted or die substr($found, 0, 200), ' instead of ', substr($wanted, 0, 200), "\n";
}

# Store a file under a label, or again under the same one.
sub add {
    my ($label, $type, $file, $valid_from, $answered) = @_;
    my $stored = store($DEVICE, $type, $valid_from, $files{$file});
    expect([@$stored{qw(device_name valid_from size)}], [$DEVICE, $answered, '' . length $files{$file}]);
    $ids{$label} //= $stored->{id};
    expect($stored->{id}, $ids{$label});
}

sub same {
    my ($file, $calibration) = @_;
    expect($calibration->{id}, $ids{$file});
    payload_of($calibration) eq $files{$file} or die "other bytes\n";
}

sub for_run {
    my ($type, $run) = @_;
    return ask(
        $reader, 'get_calibration_for_run', device_name => $DEVICE, calibration_type => $type, run_number => $run
    );
}

sub for_date {
    my ($type, $date) = @_;
    return ask($reader, 'get_calibration_for_date', device_name => $DEVICE, calibration_type => $type, date => $date);
}

sub current {
    my ($type, @as_of) = @_;
    return ask($reader, 'get_current_calibration', device_name => $DEVICE, calibration_type => $type, @as_of);
}

sub for_id {
    my ($label) = @_;
    return ask($reader, 'get_calibration_for_id', id => $ids{$label});
}

sub applies {
    my ($label, $date, $answered) = @_;
    my ($calibration) = for_date('instants', $date);
    expect([@$calibration{qw(id valid_from)}], [$ids{$label}, $answered]);
}

sub listed {
    my ($labels, @period) = @_;
    my @own = grep { $_->{device_name} eq $DEVICE } ask($reader, 'get_ids', @period);
    expect([map { $_->{id} } @own], [map { $ids{$_} } @$labels]);
    expect([grep { exists $_->{data} } @own], []);
}

# A question must end with this fault, its detail with these fields.
sub fault {
    my ($name, $fields, $question) = @_;
    eval { $question->(); 1 } and die "no fault\n";
    ref $@ or die $@;
    my ($found, $detail) = %{$@};
    expect([$found, { map { $_ => $detail->{$_} } keys %$fields }], [$name, $fields]);
    length $detail->{message} > 20 or die "no message\n";
}

sub succeed {
    my ($answer) = @_;
    die $answer->faultstring, "\n" if $answer->fault;
}

step('wsdl', sub {
    my $made = SOAP::Lite->service("$url/cdb/v2/calibration?wsdl");
    $made->want_som(1);
    succeed($made->get_ids($VALID_FROM));
});
for my $name (@names) {
    step("upload-$name", sub { add($name, $name, $name, $VALID_FROM, $VALID_FROM) });
}
step('upload-again', sub { add('binary', 'binary', 'binary', $VALID_FROM, $VALID_FROM) });
step('add-run', sub {
    my ($run) = ask($writer, 'add_run', run_number => $RUN, start_time => $RUN_START, stop_time => $RUN_STOP);
    expect([@$run{qw(run_number start_time stop_time)}], [$RUN, $RUN_START, $RUN_STOP]);
});
for my $name (@names) {
    step("get-for-run-$name", sub { same($name, for_run($name, $RUN)) });
    step("get-for-date-$name", sub { same($name, for_date($name, $VALID_FROM)) });
    step("get-current-$name", sub { same($name, current($name)) });
    step("get-for-id-$name", sub { same($name, for_id($name)) });
}
step('upload-microseconds', sub { add('precise', 'instants', 'binary', $PRECISE, $PRECISE) });
step('microsecond-before', sub { fault('CalibrationNotFound', {}, sub { for_date('instants', $BEFORE_PRECISE) }) });
step('microsecond-at', sub { applies('precise', $PRECISE, $PRECISE) });
step('microsecond-after', sub { applies('precise', $AFTER_PRECISE, $PRECISE) });
step('upload-offset', sub { add('offset', 'instants', 'binary', $OFFSET, $OFFSET_IN_UTC) });
step('offset-before', sub { applies('precise', $BEFORE_OFFSET, $PRECISE) });
step('offset-at', sub { applies('offset', $OFFSET, $OFFSET_IN_UTC) });
step('no-offset', sub { applies('offset', $WITHOUT_OFFSET, $OFFSET_IN_UTC) });
step('valid-until', sub {
    my ($closed, $open) = (for_id('precise'), for_id('offset'));
    expect([$closed->{valid_until}, exists $open->{valid_until}], [$OFFSET_IN_UTC, !1]);
});
step('get-ids', sub { listed(['binary', 'megabyte', 'empty', 'precise'], start_time => $BEFORE_OFFSET) });
step('get-ids-period', sub {
    listed(['binary', 'megabyte', 'empty', 'precise', 'offset'], start_time => $RUN_START, stop_time => $OFFSET);
});
step('list-devices', sub {
    my ($device) = grep { $_->{device_name} eq $DEVICE } ask($reader, 'list_devices');
    expect($device->{calibration_type}, ['binary', 'empty', 'instants', 'megabyte']);
});
step('as-of', sub { fault('CalibrationNotFound', {}, sub { current('binary', as_of => $VALID_FROM) }) });
step('withdraw', sub {
    my ($withdrawn) = ask($writer, 'withdraw_calibration', id => $ids{offset}, reason => 'only a test');
    expect([@$withdrawn{qw(withdrawn withdrawn_reason)}], ['true', 'only a test']);
    applies('precise', $OFFSET, $PRECISE);
});
step('fault-calibration-not-found', sub {
    my $missing = { device_name => $DEVICE, calibration_type => 'missing' };
    fault('CalibrationNotFound', $missing, sub { current('missing') });
});
step('fault-invalid-argument', sub {
    my @period = (start_time => $PRECISE, stop_time => $VALID_FROM);
    fault('InvalidArgument', { argument => 'stop_time' }, sub { ask($reader, 'get_ids', @period) });
});
step('fault-run-not-found', sub {
    fault('RunNotFound', { run_number => '' . ($RUN + 1) }, sub { for_run('binary', $RUN + 1) });
});
step('no-token', sub {
    my $nobody = service('calibrationSuperMouse');
    eval { ask($nobody, 'add_run', run_number => $RUN, start_time => $RUN_START) };
    expect($nobody->transport->status, '401 Unauthorized');
});

# What else SOAP::Lite cannot do: see the table in the test.
step('no-arguments', sub { succeed($reader->call('get_status')) });
