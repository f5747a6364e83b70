<#
.SYNOPSIS
    Puts the sample driver on a test VM, starts it, or removes it.

.DESCRIPTION
    Works over PowerShell remoting. The VM has to be prepared as docs/windows.md says: test signing on, Secure Boot off.
    This script was written beside the Linux tooling of the project and has not been run on Windows yet.

.EXAMPLE
    scripts\deploy.ps1 -ComputerName testvm -Credential (Get-Credential)
    Installs the debug package and starts the driver.

.EXAMPLE
    scripts\deploy.ps1 -ComputerName testvm -Verify
    The same with Driver Verifier, which needs a restart of the VM.

.EXAMPLE
    scripts\deploy.ps1 -ComputerName testvm -Remove
    Stops the driver and removes what was installed.
#>
[CmdletBinding(DefaultParameterSetName = 'Install')]
param(
    # The test VM.
    [Parameter(Mandatory)] [string] $ComputerName,
    # An administrator there; without it, who runs this.
    [pscredential] $Credential,
    # Which build to take.
    [ValidateSet('debug', 'release')] [string] $Configuration = 'debug',
    # Turns Driver Verifier on for the driver, and restarts the VM.
    [Parameter(ParameterSetName = 'Install')] [switch] $Verify,
    # Stops and removes it instead.
    [Parameter(ParameterSetName = 'Remove', Mandatory)] [switch] $Remove
)

$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

$service = 'conditional_accept'
$root = Split-Path -Parent $PSScriptRoot
$package = Join-Path $root "examples\conditional-accept\target\$Configuration\${service}_package"
$gatectl = Join-Path $root 'target\release\gatectl.exe'

$connect = @{ ComputerName = $ComputerName }
if ($Credential) { $connect.Credential = $Credential }

function Stop-Driver {
    param($Session)
    Invoke-Command -Session $Session -ArgumentList $service -ScriptBlock {
        param($service)
        if (-not (Get-Service $service -ErrorAction SilentlyContinue)) { return }
        sc.exe stop $service | Out-Null
        # Stopping closes connections and waits for WSK. A program that holds the device open holds it up.
        $deadline = (Get-Date).AddSeconds(30)
        while ((Get-Service $service).Status -ne 'Stopped') {
            if ((Get-Date) -gt $deadline) {
                throw "$service has not stopped in 30 seconds: end the programs that use its device (gatectl), and try again"
            }
            Start-Sleep -Milliseconds 200
        }
    }
}

if (-not $Remove) {
    if (-not (Test-Path (Join-Path $package "$service.sys"))) {
        throw "there is no package in ${package}: run 'cargo make' in examples\conditional-accept first"
    }
    if (-not (Test-Path $gatectl)) {
        throw "there is no ${gatectl}: run 'cargo build --release -p gatectl' first"
    }
}

$session = New-PSSession @connect
try {
    Write-Host "stopping what runs on $ComputerName"
    Stop-Driver $session
    if ($Remove) {
        Invoke-Command -Session $session -ArgumentList $service -ScriptBlock {
            param($service)
            sc.exe delete $service | Out-Null
            verifier.exe /reset | Out-Null
            Remove-Item "C:\Windows\System32\drivers\$service.sys" -ErrorAction SilentlyContinue
            Remove-Item "C:\$service" -Recurse -ErrorAction SilentlyContinue
        }
        Write-Host 'removed'
        return
    }

    Write-Host "copying the $Configuration package"
    Invoke-Command -Session $session -ArgumentList $service -ScriptBlock {
        param($service)
        New-Item "C:\$service" -ItemType Directory -Force | Out-Null
    }
    Copy-Item "$package\*" -Destination "C:\$service" -ToSession $session -Recurse -Force
    Copy-Item $gatectl -Destination "C:\$service" -ToSession $session -Force

    Invoke-Command -Session $session -ArgumentList $service, $Verify.IsPresent -ScriptBlock {
        param($service, $verify)
        $testSigning = (bcdedit.exe /enum '{current}') -match 'testsigning\s+Yes'
        if (-not $testSigning) {
            throw "test signing is off: run 'bcdedit /set testsigning on' on the VM and restart it"
        }
        certutil.exe -f -addstore Root "C:\$service\WDRLocalTestCert.cer" | Out-Null
        certutil.exe -f -addstore TrustedPublisher "C:\$service\WDRLocalTestCert.cer" | Out-Null
        Copy-Item "C:\$service\$service.sys" 'C:\Windows\System32\drivers\' -Force
        # A service that is there keeps its Parameters.
        if (-not (Get-Service $service -ErrorAction SilentlyContinue)) {
            sc.exe create $service type= kernel start= demand binPath= "C:\Windows\System32\drivers\$service.sys" | Out-Null
            if ($LASTEXITCODE -ne 0) { throw "the service cannot be created (sc.exe says $LASTEXITCODE)" }
        }
        if ($verify) { verifier.exe /standard /driver "$service.sys" | Out-Null }
    }

    if ($Verify) {
        Write-Host 'restarting the VM: Driver Verifier takes effect then'
        Remove-PSSession $session
        Restart-Computer @connect -Wait -For PowerShell -Force
        $session = New-PSSession @connect
    }

    Invoke-Command -Session $session -ArgumentList $service -ScriptBlock {
        param($service)
        sc.exe start $service | Out-Null
        if ($LASTEXITCODE -ne 0) {
            throw "the driver does not start (sc.exe says $LASTEXITCODE): 577 means that its signature is not trusted"
        }
        & "C:\$service\gatectl.exe" status
    }
} finally {
    if ($session) { Remove-PSSession $session }
}
