// The scenario in Java with JAX-WS.

import mice.cdb.read.Device;
import mice.cdb.read.InvalidArgumentFault;
import mice.cdb.read.RunNotFoundFault;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Objects;
import java.util.stream.Collectors;
import javax.xml.ws.WebServiceException;

// docs: begin
import mice.cdb.read.Calibration;
import mice.cdb.read.CalibrationNotFoundFault;
import mice.cdb.read.CalibrationRecord;
import mice.cdb.read.CalibrationService;
import mice.cdb.write.CalibrationSuperMouse;
import mice.cdb.write.CalibrationSuperMouseService;
import java.math.BigInteger;
import java.net.URL;
import java.security.MessageDigest;
import java.util.Map;
import javax.xml.datatype.DatatypeFactory;
import javax.xml.datatype.XMLGregorianCalendar;
import javax.xml.ws.BindingProvider;

class Cdb {
    final Calibration reader;
    final CalibrationSuperMouse writer;

    Cdb(String url, String user, String token) throws Exception {
        reader = new CalibrationService(new URL(url + "/cdb/v2/calibration?wsdl")).getCalibrationPort();
        URL contract = new URL(url + "/cdb/v2/calibrationSuperMouse?wsdl");
        writer = new CalibrationSuperMouseService(contract).getCalibrationSuperMousePort();
        Map<String, Object> context = ((BindingProvider) writer).getRequestContext();
        context.put(BindingProvider.USERNAME_PROPERTY, user);
        context.put(BindingProvider.PASSWORD_PROPERTY, token);
    }

    /** A time like 2016-03-01T08:00:00.123456Z. Read one with toXMLFormat(): a GregorianCalendar ends at milliseconds. */
    static XMLGregorianCalendar time(String text) throws Exception {
        return DatatypeFactory.newInstance().newXMLGregorianCalendar(text);
    }

    static String sha256(byte[] data) throws Exception {
        return String.format("%064x", new BigInteger(1, MessageDigest.getInstance("SHA-256").digest(data)));
    }

    /** Store bytes, to apply from a time on. The server checks the sha256, and an empty payload needs it. */
    mice.cdb.write.CalibrationRecord store(String device, String type, String validFrom, byte[] data) throws Exception {
        return writer.addCalibration(device, type, time(validFrom), data, sha256(data), "from Java");
    }

    /** The bytes, checked, of an answer such as reader.getCalibrationForRun("TOF1", "t0", 7662, null). */
    static byte[] payloadOf(CalibrationRecord calibration) throws Exception {
        if (!sha256(calibration.getData()).equals(calibration.getSha256())) {
            throw new IllegalStateException("calibration " + calibration.getId() + " was damaged on its way");
        }
        return calibration.getData();
    }

    /** Every fault is an exception of its own, whose getFaultInfo() holds the fields of the detail. */
    String whatIsMissing(String device, String type) throws Exception {
        try {
            reader.getCurrentCalibration(device, type, null);
            return "nothing";
        } catch (CalibrationNotFoundFault fault) {
            return fault.getFaultInfo().getDeviceName() + " " + fault.getFaultInfo().getCalibrationType();
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

    interface Question {
        CalibrationRecord ask() throws Exception;
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
        mice.cdb.write.CalibrationRecord stored = cdb.store(DEVICE, type, validFrom, files.get(file));
        expect(stored.getDeviceName(), DEVICE);
        expect(stored.getValidFrom().toXMLFormat(), answered);
        expect(stored.getSize(), (long) files.get(file).length);
        ids.putIfAbsent(label, stored.getId());
        expect(stored.getId(), ids.get(label));
    }

    static void same(String file, CalibrationRecord calibration) throws Exception {
        expect(calibration.getId(), ids.get(file));
        expect(Arrays.equals(Cdb.payloadOf(calibration), files.get(file)), true);
    }

    static CalibrationRecord forDate(String type, String date) throws Exception {
        return reader.getCalibrationForDate(DEVICE, type, Cdb.time(date), null);
    }

    static void applies(String label, String date, String answered) throws Exception {
        CalibrationRecord calibration = forDate("instants", date);
        expect(calibration.getId(), ids.get(label));
        expect(calibration.getValidFrom().toXMLFormat(), answered);
    }

    static void listed(List<String> labels, String start, String stop) throws Exception {
        List<Long> own = new ArrayList<>();
        XMLGregorianCalendar end = stop == null ? null : Cdb.time(stop);
        for (CalibrationRecord calibration : reader.getIds(Cdb.time(start), end, null)) {
            if (calibration.getDeviceName().equals(DEVICE)) {
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
            reader.getIds(Cdb.time(VALID_FROM), null, null);
            expect(reader.getStatus().getStatus(), "OK");
        });
        for (String name : files.keySet()) {
            step("upload-" + name, () -> add(name, name, name, VALID_FROM, VALID_FROM));
        }
        step("upload-again", () -> add("binary", "binary", "binary", VALID_FROM, VALID_FROM));
        step("add-run", () -> {
            mice.cdb.write.Run run = cdb.writer.addRun(RUN, Cdb.time(RUN_START), Cdb.time(RUN_STOP));
            expect(run.getRunNumber(), RUN);
            expect(run.getStartTime().toXMLFormat(), RUN_START);
            expect(run.getStopTime().toXMLFormat(), RUN_STOP);
        });
        for (String name : files.keySet()) {
            step("get-for-run-" + name, () -> same(name, reader.getCalibrationForRun(DEVICE, name, RUN, null)));
            step("get-for-date-" + name, () -> same(name, forDate(name, VALID_FROM)));
            step("get-current-" + name, () -> same(name, reader.getCurrentCalibration(DEVICE, name, null)));
            step("get-for-id-" + name, () -> same(name, reader.getCalibrationForId(ids.get(name), null)));
        }
        step("upload-microseconds", () -> add("precise", "instants", "binary", PRECISE, PRECISE));
        step("microsecond-before", () ->
            fault(CalibrationNotFoundFault.class, () -> forDate("instants", BEFORE_PRECISE)));
        step("microsecond-at", () -> applies("precise", PRECISE, PRECISE));
        step("microsecond-after", () -> applies("precise", AFTER_PRECISE, PRECISE));
        step("upload-offset", () -> add("offset", "instants", "binary", OFFSET, OFFSET_IN_UTC));
        step("offset-before", () -> applies("precise", BEFORE_OFFSET, PRECISE));
        step("offset-at", () -> applies("offset", OFFSET, OFFSET_IN_UTC));
        step("no-offset", () -> applies("offset", WITHOUT_OFFSET, OFFSET_IN_UTC));
        step("valid-until", () -> {
            XMLGregorianCalendar end = reader.getCalibrationForId(ids.get("precise"), null).getValidUntil();
            expect(end.toXMLFormat(), OFFSET_IN_UTC);
            expect(reader.getCalibrationForId(ids.get("offset"), null).getValidUntil(), null);
        });
        step("get-ids", () -> listed(List.of("binary", "megabyte", "empty", "precise"), BEFORE_OFFSET, null));
        step("get-ids-period", () ->
            listed(List.of("binary", "megabyte", "empty", "precise", "offset"), RUN_START, OFFSET));
        step("list-devices", () -> {
            for (Device device : reader.listDevices(null)) {
                if (device.getDeviceName().equals(DEVICE)) {
                    expect(device.getCalibrationType(), List.of("binary", "empty", "instants", "megabyte"));
                    return;
                }
            }
            throw new AssertionError(DEVICE + " is not listed");
        });
        step("as-of", () -> fault(CalibrationNotFoundFault.class, () ->
            reader.getCurrentCalibration(DEVICE, "binary", Cdb.time(VALID_FROM))));
        step("withdraw", () -> {
            mice.cdb.write.CalibrationRecord withdrawn =
                cdb.writer.withdrawCalibration(ids.get("offset"), "only a test");
            expect(withdrawn.isWithdrawn(), true);
            expect(withdrawn.getWithdrawnReason(), "only a test");
            applies("precise", OFFSET, PRECISE);
        });
        step("fault-calibration-not-found", () -> {
            expect(cdb.whatIsMissing(DEVICE, "missing"), DEVICE + " missing");
            CalibrationNotFoundFault fault = fault(CalibrationNotFoundFault.class, () ->
                reader.getCurrentCalibration(DEVICE, "missing", null));
            expect(fault.getFaultInfo().getMessage().length() > 20, true);
        });
        step("fault-invalid-argument", () -> {
            InvalidArgumentFault fault = fault(InvalidArgumentFault.class, () ->
                reader.getIds(Cdb.time(PRECISE), Cdb.time(VALID_FROM), null));
            expect(fault.getFaultInfo().getArgument(), "stop_time");
        });
        step("fault-run-not-found", () -> {
            RunNotFoundFault fault = fault(RunNotFoundFault.class, () ->
                reader.getCalibrationForRun(DEVICE, "binary", RUN + 1, null));
            expect(fault.getFaultInfo().getRunNumber(), RUN + 1);
        });
        step("no-token", () -> {
            URL contract = new URL(url + "/cdb/v2/calibrationSuperMouse?wsdl");
            CalibrationSuperMouse nobody = new CalibrationSuperMouseService(contract).getCalibrationSuperMousePort();
            WebServiceException error = fault(WebServiceException.class, () ->
                nobody.addRun(RUN, Cdb.time(RUN_START), null));
            expect(error.getMessage(), "The server sent HTTP status code 401: Unauthorized");
        });
    }
}
