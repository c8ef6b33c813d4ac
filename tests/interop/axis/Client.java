// The scenario in Java with Axis 1.4. Its stubs are made of the contract with text for times; those in the package
// mice.cdb.asis, of the contract as it is, serve only to show why.

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.GregorianCalendar;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import mice.cdb.read.Device;
import mice.cdb.read.InvalidArgument;
import mice.cdb.read.RunNotFound;
import org.apache.axis.AxisFault;

// docs: begin
import java.math.BigInteger;
import java.net.URL;
import java.security.MessageDigest;
import mice.cdb.read.Calibration;
import mice.cdb.read.CalibrationNotFound;
import mice.cdb.read.CalibrationServiceLocator;
import mice.cdb.read.Calibration_record;
import mice.cdb.write.CalibrationSuperMouse;
import mice.cdb.write.CalibrationSuperMouseServiceLocator;
import org.apache.axis.client.Stub;

class Cdb {
    final Calibration reader;
    final CalibrationSuperMouse writer;

    Cdb(String url, String user, String token) throws Exception {
        reader = new CalibrationServiceLocator().getCalibrationPort(new URL(url + "/cdb/v2/calibration"));
        URL writing = new URL(url + "/cdb/v2/calibrationSuperMouse");
        writer = new CalibrationSuperMouseServiceLocator().getCalibrationSuperMousePort(writing);
        ((Stub) writer).setUsername(user);
        ((Stub) writer).setPassword(token);
    }

    static String sha256(byte[] data) throws Exception {
        return String.format("%064x", new BigInteger(1, MessageDigest.getInstance("SHA-256").digest(data)));
    }

    /** Store bytes, to apply from a time like 2016-03-01T08:00:00.123456Z on. An empty payload needs the sha256. */
    mice.cdb.write.Calibration_record store(String device, String type, String validFrom, byte[] data)
            throws Exception {
        return writer.add_calibration(device, type, validFrom, data, sha256(data), "from Axis");
    }

    /** The bytes, checked, of an answer such as reader.get_calibration_for_run("TOF1", "t0", 7662, null). */
    static byte[] payloadOf(Calibration_record calibration) throws Exception {
        if (!sha256(calibration.getData()).equals(calibration.getSha256())) {
            throw new IllegalStateException("calibration " + calibration.getId() + " was damaged on its way");
        }
        return calibration.getData();
    }

    /** Every fault is an exception of its own; its message is getMessage1(). */
    String whatIsMissing(String device, String type) throws Exception {
        try {
            reader.get_current_calibration(device, type, null);
            return "nothing";
        } catch (CalibrationNotFound fault) {
            return fault.getDevice_name() + " " + fault.getCalibration_type();
        }
    }
}
// docs: end

public class Client {
    static final String VALID_FROM = "2016-01-01T00:00:00.000000Z";
    static final String RUN_START = "2016-02-01T12:00:00.000001Z";
    static final String RUN_STOP = "2016-02-01T13:00:00.000000Z";
    static final String BEFORE_PRECISE = "2016-03-01T08:00:00.123455Z";
    static final String PRECISE = "2016-03-01T08:00:00.123456Z";
    static final String AFTER_PRECISE = "2016-03-01T08:00:00.123457Z";
    static final String BEFORE_OFFSET = "2016-03-01T12:00:00.000000+02:00";
    static final String OFFSET = "2016-03-01T12:00:00.000001+02:00";
    static final String OFFSET_IN_UTC = "2016-03-01T10:00:00.000001Z";
    static final String WITHOUT_OFFSET = "2016-03-01T10:00:00.000001";

    static final String DEVICE = System.getenv("INTEROP_DEVICE");
    static final long RUN = Long.parseLong(System.getenv("INTEROP_RUN"));
    static final Map<String, byte[]> files = new LinkedHashMap<>();
    static final Map<String, Long> ids = new HashMap<>();
    static Cdb cdb;
    static Calibration reader;

    interface Work {
        void run() throws Exception;
    }

    /** Do one step of the scenario and print what came of it. */
    static void step(String name, Work work) {
        try {
            work.run();
            System.out.println("ok " + name);
        } catch (Throwable error) {
            System.out.println(("not ok " + name + ": " + error).replace("\n", " "));
        }
    }

    static void expect(Object found, Object wanted) {
        if (!Objects.equals(found, wanted)) {
            throw new AssertionError(found + " instead of " + wanted);
        }
    }

    /** Store a file under a label, or again under the same one. */
    static void add(String label, String type, String file, String validFrom, String answered) throws Exception {
        mice.cdb.write.Calibration_record stored = cdb.store(DEVICE, type, validFrom, files.get(file));
        ids.putIfAbsent(label, stored.getId());
        expect(stored.getId(), ids.get(label));
        expect(stored.getDevice_name(), DEVICE);
        expect(stored.getSize(), (long) files.get(file).length);
        expect(stored.getValid_from(), answered);
    }

    static void same(String file, Calibration_record calibration) throws Exception {
        expect(calibration.getId(), ids.get(file));
        expect(Arrays.equals(Cdb.payloadOf(calibration), files.get(file)), true);
    }

    static Calibration_record forDate(String type, String date) throws Exception {
        return reader.get_calibration_for_date(DEVICE, type, date, null);
    }

    static void applies(String label, String date, String answered) throws Exception {
        Calibration_record calibration = forDate("instants", date);
        expect(calibration.getId(), ids.get(label));
        expect(calibration.getValid_from(), answered);
    }

    static void listed(List<String> labels, Calibration_record[] calibrations) {
        List<Long> own = new ArrayList<>();
        for (Calibration_record calibration : calibrations) {
            if (calibration.getDevice_name().equals(DEVICE)) {
                own.add(calibration.getId());
                expect(calibration.getData(), null);
            }
        }
        expect(own, labels.stream().map(ids::get).collect(Collectors.toList()));
    }

    /** A question must end with this fault. */
    static <F extends Exception> F fault(Class<F> wanted, Work ask) throws Exception {
        try {
            ask.run();
        } catch (Exception error) {
            if (wanted.isInstance(error)) {
                return wanted.cast(error);
            }
            throw error;
        }
        throw new AssertionError("no fault");
    }

    public static void main(String[] arguments) throws Exception {
        for (String name : List.of("binary", "megabyte", "empty")) {
            files.put(name, Files.readAllBytes(Path.of(System.getenv("INTEROP_PAYLOADS"), name)));
        }
        String url = System.getenv("CDB_SERVER");
        cdb = new Cdb(url, System.getenv("CDB_USER"), System.getenv("CDB_TOKEN"));
        reader = cdb.reader;

        step("wsdl", () -> {
            URL reading = new URL(url + "/cdb/v2/calibration");
            new mice.cdb.asis.CalibrationServiceLocator().getCalibrationPort(reading)
                .get_ids(GregorianCalendar.from(ZonedDateTime.parse(VALID_FROM)), null, null);
            expect(reader.get_status().getStatus(), "OK");
        });
        for (String name : files.keySet()) {
            step("upload-" + name, () -> add(name, name, name, VALID_FROM, VALID_FROM));
        }
        step("upload-again", () -> add("binary", "binary", "binary", VALID_FROM, VALID_FROM));
        step("add-run", () -> {
            mice.cdb.write.Run run = cdb.writer.add_run(RUN, RUN_START, RUN_STOP);
            expect(run.getRun_number(), RUN);
            expect(run.getStop_time(), RUN_STOP);
            expect(run.getStart_time(), RUN_START);
        });
        for (String name : files.keySet()) {
            step("get-for-run-" + name, () -> same(name, reader.get_calibration_for_run(DEVICE, name, RUN, null)));
            step("get-for-date-" + name, () -> same(name, forDate(name, VALID_FROM)));
            step("get-current-" + name, () -> same(name, reader.get_current_calibration(DEVICE, name, null)));
            step("get-for-id-" + name, () -> same(name, reader.get_calibration_for_id(ids.get(name), null)));
        }
        step("upload-microseconds", () -> add("precise", "instants", "binary", PRECISE, PRECISE));
        step("microsecond-before", () -> fault(CalibrationNotFound.class, () -> forDate("instants", BEFORE_PRECISE)));
        step("microsecond-at", () -> applies("precise", PRECISE, PRECISE));
        step("microsecond-after", () -> applies("precise", AFTER_PRECISE, PRECISE));
        step("upload-offset", () -> add("offset", "instants", "binary", OFFSET, OFFSET_IN_UTC));
        step("offset-before", () -> applies("precise", BEFORE_OFFSET, PRECISE));
        step("offset-at", () -> applies("offset", OFFSET, OFFSET_IN_UTC));
        step("no-offset", () -> applies("offset", WITHOUT_OFFSET, OFFSET_IN_UTC));
        step("valid-until", () -> {
            expect(reader.get_calibration_for_id(ids.get("offset"), null).getValid_until(), null);
            expect(reader.get_calibration_for_id(ids.get("precise"), null).getValid_until(), OFFSET_IN_UTC);
        });
        step("get-ids", () -> listed(
            List.of("binary", "megabyte", "empty", "precise"), reader.get_ids(BEFORE_OFFSET, null, null)));
        step("get-ids-period", () -> listed(
            List.of("binary", "megabyte", "empty", "precise", "offset"),
            reader.get_ids(RUN_START, OFFSET, null)));
        step("list-devices", () -> {
            for (Device device : reader.list_devices(null)) {
                if (device.getDevice_name().equals(DEVICE)) {
                    expect(List.of(device.getCalibration_type()), List.of("binary", "empty", "instants", "megabyte"));
                    return;
                }
            }
            throw new AssertionError(DEVICE + " is not listed");
        });
        step("as-of", () -> fault(CalibrationNotFound.class, () ->
            reader.get_current_calibration(DEVICE, "binary", VALID_FROM)));
        step("withdraw", () -> {
            mice.cdb.write.Calibration_record withdrawn =
                cdb.writer.withdraw_calibration(ids.get("offset"), "only a test");
            expect(withdrawn.isWithdrawn(), true);
            expect(withdrawn.getWithdrawn_reason(), "only a test");
            expect(forDate("instants", OFFSET).getId(), ids.get("precise"));
        });
        step("fault-calibration-not-found", () -> {
            expect(cdb.whatIsMissing(DEVICE, "missing"), DEVICE + " missing");
            CalibrationNotFound fault = fault(CalibrationNotFound.class, () ->
                reader.get_current_calibration(DEVICE, "missing", null));
            expect(fault.getMessage1().length() > 20, true);
        });
        step("fault-invalid-argument", () -> {
            InvalidArgument fault = fault(InvalidArgument.class, () ->
                reader.get_ids(PRECISE, VALID_FROM, null));
            expect(fault.getArgument(), "stop_time");
        });
        step("fault-run-not-found", () -> {
            RunNotFound fault = fault(RunNotFound.class, () ->
                reader.get_calibration_for_run(DEVICE, "binary", RUN + 1, null));
            expect(fault.getRun_number(), RUN + 1);
        });
        step("no-token", () -> {
            Cdb nobody = new Cdb(url, null, null);
            AxisFault error = fault(AxisFault.class, () -> nobody.writer.add_run(RUN, RUN_START, null));
            expect(error.getFaultString(), "(401)Unauthorized");
        });
    }
}
