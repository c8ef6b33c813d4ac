// The short scenario in C#, with the proxies that Mono's wsdl makes of the plain description.

// docs: begin
using System;
using System.Net;
using System.Security.Cryptography;
using System.Web.Services.Protocols;

static class Cdb
{
    static readonly string url = Environment.GetEnvironmentVariable("CDB_SERVER");

    public static Read.CalibrationService Reader()
    {
        return new Read.CalibrationService { Url = url + "/cdb/v2/calibration" };
    }

    public static Write.CalibrationSuperMouseService Writer(string user, string token)
    {
        return new Write.CalibrationSuperMouseService {
            Url = url + "/cdb/v2/calibrationSuperMouse", Credentials = new NetworkCredential(user, token)
        };
    }

    static string Sha256(byte[] data)
    {
        return BitConverter.ToString(SHA256.Create().ComputeHash(data)).Replace("-", "").ToLower();
    }

    // Store bytes, to apply from a time like 2016-03-01T08:00:00.123456Z on. An argument that is null is left out.
    public static Write.calibration_record Store(
        Write.CalibrationSuperMouseService writer, string device, string type, string validFrom, byte[] data)
    {
        return writer.add_calibration(device, type, validFrom, Convert.ToBase64String(data), Sha256(data), null);
    }

    // The bytes, checked, of an answer such as Reader().get_calibration_for_run("TOF1", "t0", 7662, null).
    public static byte[] PayloadOf(Read.calibration_record calibration)
    {
        byte[] data = Convert.FromBase64String(calibration.data);
        if (Sha256(data) != calibration.sha256) throw new Exception("damaged on its way");
        return data;
    }

    // The name of a fault, like CalibrationNotFound, and why.
    public static string Explain(SoapException error)
    {
        return error.Code.Name + ": " + error.Message;
    }
}
// docs: end

static class Scenario
{
    static void Step(string name, Func<object> work)
    {
        string told;
        try { told = work().ToString(); }
        catch (SoapException error) { told = Cdb.Explain(error); }
        catch (WebException error) { told = ((HttpWebResponse) error.Response).StatusCode.ToString(); }
        catch (Exception error) { told = error.Message; }
        Console.WriteLine(name + ": " + told.Replace("\n", " "));
    }

    static void Main()
    {
        string device = Environment.GetEnvironmentVariable("INTEROP_DEVICE"), at = "2016-03-01T08:00:00.123456Z";
        byte[] file = System.IO.File.ReadAllBytes(Environment.GetEnvironmentVariable("INTEROP_PAYLOADS") + "/binary");
        var reader = Cdb.Reader();
        Step("status", () => reader.get_status().status1);
        Cdb.Store(Cdb.Writer(Environment.GetEnvironmentVariable("CDB_USER"), Environment.GetEnvironmentVariable("CDB_TOKEN")),
            device, "short", at, file);
        Step("bytes", () => Convert.ToBase64String(
            Cdb.PayloadOf(reader.get_calibration_for_date(device, "short", at, null))) == Convert.ToBase64String(file));
        Step("before", () => reader.get_calibration_for_date(device, "short", "2016-03-01T08:00:00.123455Z", null));
        Step("devices", () => Array.Exists(reader.list_devices(null), listed => listed.device_name == device));
        Step("no-token", () => Cdb.Writer("nobody", "none").add_run(1, at, null));
    }
}
