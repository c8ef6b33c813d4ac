// The short scenario in C++ with KDSoap, from the plain description.

// docs: begin
#include <QCoreApplication>
#include <QCryptographicHash>
#include <stdexcept>

#include <KDSoapClient/KDSoapAuthentication.h>

#include "read.h"
#include "write.h"

static const QString url = qEnvironmentVariable("CDB_SERVER");

// Store bytes, to apply from a time like 2016-03-01T08:00:00.123456Z on.
void store(Write::CalibrationSuperMouseService &writer, const QString &device, const QString &type,
           const QString &validFrom, const QByteArray &data) {
    KDSoapAuthentication authentication;
    authentication.setUser(qEnvironmentVariable("CDB_USER"));
    authentication.setPassword(qEnvironmentVariable("CDB_TOKEN"));
    writer.clientInterface()->setAuthentication(authentication);
    Write::TNS__Add_calibration call;
    call.setDevice_name(device);
    call.setCalibration_type(type);
    call.setValid_from(validFrom);
    call.setData(QString::fromLatin1(data.toBase64()));
    call.setSha256(QString::fromLatin1(QCryptographicHash::hash(data, QCryptographicHash::Sha256).toHex()));
    writer.add_calibration(call);
    if (!writer.lastError().isEmpty()) throw std::runtime_error(writer.lastError().toStdString());
}

// What applies at a time; a fault, such as Client.CalibrationNotFound, is an exception.
Read::TNS__Calibration_record forDate(Read::CalibrationService &reader, const QString &device, const QString &type,
                                      const QString &date) {
    Read::TNS__Get_calibration_for_date call;
    call.setDevice_name(device);
    call.setCalibration_type(type);
    call.setDate(date);
    const auto answer = reader.get_calibration_for_date(call);
    if (!reader.lastError().isEmpty()) throw std::runtime_error(reader.lastError().toStdString());
    return answer.calibration();
}

// The bytes, checked.
QByteArray payloadOf(const Read::TNS__Calibration_record &calibration) {
    const QByteArray data = QByteArray::fromBase64(calibration.data().toLatin1());
    if (QCryptographicHash::hash(data, QCryptographicHash::Sha256).toHex() != calibration.sha256().toLatin1())
        throw std::runtime_error("damaged on its way");
    return data;
}
// docs: end

#include <QFile>
#include <functional>
#include <iostream>

static void step(const char *name, const std::function<QString()> &work) {
    QString told;
    try {
        told = work();
    } catch (const std::exception &error) {
        told = error.what();
    }
    std::cout << name << ": " << told.replace('\n', ' ').toStdString() << std::endl;
}

int main(int count, char **arguments) {
    QCoreApplication application(count, arguments);
    const QString device = qEnvironmentVariable("INTEROP_DEVICE"), at = "2016-03-01T08:00:00.123456Z";
    QFile opened(qEnvironmentVariable("INTEROP_PAYLOADS") + "/binary");
    opened.open(QIODevice::ReadOnly);
    const QByteArray file = opened.readAll();
    Read::CalibrationService reader;
    Write::CalibrationSuperMouseService writer;
    step("status", [&] { return reader.get_status().status().status(); });
    store(writer, device, "short", at, file);
    step("bytes", [&] { return payloadOf(forDate(reader, device, "short", at)) == file ? "true" : "false"; });
    step("before", [&] { return forDate(reader, device, "short", "2016-03-01T08:00:00.123455Z").valid_from(); });
    step("devices", [&] {
        for (const auto &listed : reader.list_devices(Read::TNS__List_devices()).device())
            if (listed.device_name() == device) return "true";
        return "false";
    });
    qputenv("CDB_TOKEN", "wrong");
    Write::CalibrationSuperMouseService nobody;
    step("no-token", [&] { store(nobody, device, "short", at, file); return "stored"; });
}
